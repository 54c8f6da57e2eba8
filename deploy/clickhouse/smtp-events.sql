-- smtp-observer's events in ClickHouse, from Kafka's topic smtp-events: docs/pipelines.md.

-- What one looks for has a column; the event as it is has one too.
CREATE TABLE smtp_events
(
    time          DateTime64(9, 'UTC') CODEC(Delta, ZSTD),
    host          LowCardinality(String),
    event         LowCardinality(String),
    connection    String,
    role          LowCardinality(String),
    remote        String,
    port          UInt16,
    process       LowCardinality(String),
    executable    LowCardinality(String),
    uid           Nullable(UInt32),
    intercepted   Bool,
    reason        LowCardinality(String),
    verdict       LowCardinality(String),
    interceptor   LowCardinality(String),
    confidence    Nullable(Float64),
    line          String CODEC(ZSTD(3))
)
ENGINE = MergeTree
PARTITION BY toDate(time)
ORDER BY (event, host, time)
TTL toDateTime(time) + INTERVAL 30 DAY
-- What ran out goes as whole days, without rewriting what stays.
SETTINGS ttl_only_drop_parts = 1;

-- A line a row, as it came. A line that is no JSON is left out: it would stop the topic.
CREATE TABLE smtp_events_topic (line String)
ENGINE = Kafka
SETTINGS kafka_broker_list = '127.0.0.1:9092', kafka_topic_list = 'smtp-events', kafka_group_name = 'clickhouse',
    kafka_format = 'LineAsString', kafka_num_consumers = 1;

CREATE MATERIALIZED VIEW smtp_events_reader TO smtp_events AS
SELECT
    parseDateTime64BestEffort(JSONExtractString(line, 'time'), 9, 'UTC') AS time,
    JSONExtractString(line, 'host') AS host,
    JSONExtractString(line, 'event') AS event,
    JSONExtractString(line, 'connection', 'id') AS connection,
    JSONExtractString(line, 'connection', 'role') AS role,
    JSONExtractString(line, 'connection', 'remote', 'address') AS remote,
    JSONExtractUInt(line, 'connection', 'remote', 'port') AS port,
    JSONExtractString(line, 'process', 'name') AS process,
    JSONExtractString(line, 'process', 'executable') AS executable,
    JSONExtract(line, 'process', 'uid', 'Nullable(UInt32)') AS uid,
    JSONExtractBool(line, 'intercepted') AS intercepted,
    JSONExtractString(line, 'reason') AS reason,
    JSONExtractString(line, 'verdict') AS verdict,
    JSONExtractString(line, 'interceptor', 'name') AS interceptor,
    JSONExtract(line, 'confidence', 'Nullable(Float64)') AS confidence,
    line
FROM smtp_events_topic
WHERE JSONHas(line, 'time');
