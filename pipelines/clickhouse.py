"""Loads events into ClickHouse's own engine by deploy/clickhouse, and asks what a document asks.

clickhouse.py TABLES EVENTS DOCUMENT

chdb is ClickHouse as a library. It reads no Kafka: the lines are inserted into a table that passes them on, as the
table of the topic would.
"""

import json
import re
import sys

from chdb import session


def main(tables, events, document):
    clickhouse = session.Session()

    def ask(query):
        return [json.loads(row) for row in str(clickhouse.query(query, "JSONEachRow")).splitlines() if row]

    with open(tables, encoding="utf-8") as file:
        script = "".join(line for line in file if not line.startswith("--"))
    script, changed = re.subn(r"ENGINE = Kafka\s+SETTINGS[^;]*", "ENGINE = Null", script)
    assert changed == 1, f"{changed} tables of a topic"
    for statement in filter(None, (part.strip() for part in script.split(";"))):
        clickhouse.query(statement)

    with open(events, encoding="utf-8") as file:
        lines = [line.rstrip("\n") for line in file]
    expected = [json.loads(line) for line in lines]
    # What an agent that was killed leaves, and what else may be in a topic.
    others = [lines[0][:40], "", "[]"]
    rows = ("('" + line.replace("\\", "\\\\").replace("'", "\\'") + "')" for line in lines + others)
    clickhouse.query("INSERT INTO smtp_events_topic VALUES " + ",".join(rows))

    found = ask(
        "SELECT time, event, connection, role, remote, port, process, executable, uid, intercepted, reason, verdict,"
        " interceptor, confidence, line FROM smtp_events"
    )
    assert len(found) == len(expected), f"{len(found)} rows of {len(expected)} events"
    found.sort(key=lambda row: row["line"])
    for row, line, event in sorted_together(found, lines, expected):
        connection, process = event["connection"], event.get("process", {})
        wanted = {
            "line": line,
            "time": event["time"].replace("T", " ").rstrip("Z"),
            "event": event["event"],
            "connection": connection["id"],
            "role": connection["role"],
            "remote": connection["remote"]["address"],
            "port": connection["remote"]["port"],
            "process": process.get("name", ""),
            "executable": process.get("executable", ""),
            "uid": process.get("uid"),
            "intercepted": event.get("intercepted", False),
            "reason": event.get("reason", ""),
            "verdict": event.get("verdict", ""),
            "interceptor": event.get("interceptor", {}).get("name", ""),
            "confidence": event.get("confidence"),
        }
        for name, value in wanted.items():
            assert row[name] == value, f"{name} is {row[name]!r}, not {value!r}: {line}"

    with open(document, encoding="utf-8") as file:
        queries = re.findall(r"(?:^    .*\n)+", file.read(), re.MULTILINE)
    queries = [query for query in queries if query.startswith("    SELECT")]
    assert queries, f"{document} has no query"
    for query in queries:
        assert ask(query), f"nothing is found: {query}"

    clickhouse.query("OPTIMIZE TABLE smtp_events FINAL")
    size = "SELECT sum(bytes_on_disk) AS bytes FROM system.parts WHERE table = 'smtp_events' AND active"
    (size,) = ask(size)
    plain = sum(len(line) + 1 for line in lines) / len(lines)
    (version,) = ask("SELECT version() AS version")
    print(
        f"{tables}: {len(expected)} events in ClickHouse {version['version']}, as they are to be,"
        f" and {len(queries)} queries of {document} find something;"
        f" {int(size['bytes']) / len(lines):.0f} bytes each there, {plain:.0f} in the file"
    )


def sorted_together(found, lines, expected):
    order = sorted(range(len(lines)), key=lines.__getitem__)
    return [(row, lines[place], expected[place]) for row, place in zip(found, order)]


if __name__ == "__main__":
    main(*sys.argv[1:])
