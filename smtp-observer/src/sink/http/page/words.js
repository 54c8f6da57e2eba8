// How single values are put in words. Observations come with their text.

/** Address and port. */
export function endpoint({ address, port }) {
  return address.includes(":") ? `[${address}]:${port}` : `${address}:${port}`;
}

/** A process's name: that of its script, or of its executable, as in the metrics. */
export function program(process) {
  if (!process) return "not known";
  return (process.script ?? process.executable)?.split("/").pop() || process.name;
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

/** How much a verdict is to worry: `hidden`, `suspected`, `led` (the client was led elsewhere) or `chosen`. */
export const weight = ({ display, verdict }) =>
  verdict === "redirected" ? "led" : ({ alert: "hidden", notice: "suspected" })[display.level] ?? "chosen";
