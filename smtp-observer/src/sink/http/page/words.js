// How values are put in words.

/** Address and port. */
export function endpoint({ address, port }) {
  return address.includes(":") ? `[${address}]:${port}` : `${address}:${port}`;
}

/** A process's name: that of its executable, as in the metrics. */
export function program(process) {
  if (!process) return "not known";
  return process.executable?.split("/").pop() || process.name;
}

/** Who runs it. */
export const user = (process) => process.user ?? `uid ${process.uid}`;

/** A duration. */
export function duration(seconds) {
  if (seconds === undefined) return "";
  if (seconds < 0.001) return `${Math.round(seconds * 1e6)} µs`;
  if (seconds < 1) return `${Number((seconds * 1000).toPrecision(3))} ms`;
  if (seconds < 60) return `${Number(seconds.toPrecision(3))} s`;
  return age(seconds);
}

/** A duration in whole units, as of something that goes on. */
export function age(seconds) {
  const whole = Math.max(0, Math.floor(seconds));
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${whole % 60} s`;
  if (whole < 86400) return `${Math.floor(whole / 3600)} h ${Math.floor((whole % 3600) / 60)} min`;
  return `${Math.floor(whole / 86400)} d ${Math.floor((whole % 86400) / 3600)} h`;
}

/** A number of bytes. */
export function bytes(count) {
  if (count < 1000) return `${count} B`;
  const units = ["kB", "MB", "GB", "TB", "PB"];
  let value = count;
  let unit = -1;
  while (value >= 1000 && unit < units.length - 1) {
    value /= 1000;
    unit += 1;
  }
  return `${value.toPrecision(3)} ${units[unit]}`;
}

/** The time of day of an RFC 3339 time, here. */
export function clock(time) {
  const date = new Date(time);
  const two = (number) => String(number).padStart(2, "0");
  const thousandths = String(date.getMilliseconds()).padStart(3, "0");
  return `${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}.${thousandths}`;
}

/** What is kept no longer. */
export const dropped = (count) => `${counted(count, "earlier entry", "earlier entries")} dropped`;

/** Something and how often. */
export const counted = (count, one, many) => `${count.toLocaleString("en")} ${count === 1 ? one : many}`;

/** The client does not know of what is in the middle. */
const HIDDEN = new Set(["transparent_interceptor", "likely_interceptor", "transparent_l4"]);

/** How much a verdict is to worry: `hidden`, `suspected` or `chosen`. */
export function weight(verdict) {
  if (HIDDEN.has(verdict)) return "hidden";
  return verdict === "suspected_middlebox" ? "suspected" : "chosen";
}

const firstLine = (text) => (text ?? "").split("\n", 1)[0];

const answered = (code, text) => (code === undefined ? "no reply" : `${code} ${firstLine(text)}`);

/** What an observation says, in a line. */
export function brief(observation) {
  const o = observation;
  switch (o.event) {
    case "connection.opened":
      return o.requested ? `opened, asked for ${endpoint(o.requested)}` : "opened";
    case "connection.owner_changed":
      return `now used by ${program(o.process)}, before by ${program(o.previous_process)}`;
    case "connection.closed":
      return `closed after ${duration(o.duration_seconds)}: ${bytes(o.bytes_sent)} sent, ${bytes(o.bytes_received)} received`;
    case "smtp.greeting":
      return answered(o.code, o.text);
    case "smtp.command":
      return `${o.verb}${o.length === undefined ? "" : ` (${o.length} bytes)`}${o.argument === undefined ? "" : ` ${o.argument}`} → ${answered(o.code, o.reply)}`;
    case "smtp.rset":
    case "smtp.noop":
      return `${o.event === "smtp.rset" ? "RSET" : "NOOP"} because of ${o.reason}: ${o.evidence.join("; ")}`;
    case "smtp.data": {
      const phases = [
        ["go-ahead", o.go_ahead_seconds],
        ["transfer", o.transfer_seconds],
        ["accept", o.final_reply_seconds],
      ].filter(([, seconds]) => seconds !== undefined);
      const size = o.size_bytes === undefined ? "" : `, ${bytes(o.size_bytes)}`;
      const times = phases.map(([name, seconds]) => `${name} ${duration(seconds)}`).join(", ");
      return `${o.verb}${size}: ${times} → ${answered(o.code, o.reply)}`;
    }
    case "smtp.transaction":
      return `transaction ${o.outcome} after ${duration(o.duration_seconds)}, ${counted(o.recipients_accepted, "recipient", "recipients")} accepted, ${o.recipients_rejected} rejected`;
    case "smtp.tls":
      return `TLS ${o.phase}${o.library ? ` by ${o.library}` : ""}, plaintext ${o.visible ? "read" : "not read"}`;
    case "smtp.anomaly":
      return `${o.kind}: ${o.detail}`;
    case "interception":
      return o.verdict === "direct"
        ? "nothing is in the middle after all"
        : `${o.verdict} by ${o.method}: ${o.interceptor ? program(o.interceptor) : "a program elsewhere"}, ${Math.round(o.confidence * 100)} % sure`;
    default:
      return o.event;
  }
}
