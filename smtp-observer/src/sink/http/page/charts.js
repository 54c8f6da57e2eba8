// Where the time of DATA went: a bar for each of the last messages, its phases one after the other.

import { byId, drawn, element } from "./dom.js";
import { bytes, clock, duration, program } from "./words.js";

/** Messages that are shown. */
const MOST = 10;

const PHASES = [
  ["go-ahead", "go_ahead_seconds"],
  ["transfer", "transfer_seconds"],
  ["final reply", "final_reply_seconds"],
];

const ROW = 34;
const BAR = 13;

let messages = [];
let painted = "";

/** Forgets all: another agent speaks. */
export function clear() {
  messages = [];
}

/** Takes an observation, if it is a message's. */
export function take(observation) {
  if (observation.event !== "smtp.data") return;
  messages.push(observation);
  if (messages.length > MOST) messages.shift();
}

/** Steps of an axis up to this value: at most five, of a size that is easy to read. */
export function ticks(most) {
  const rough = most / 5;
  const magnitude = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((factor) => factor * magnitude).find((size) => size >= rough);
  const count = Math.ceil(most / step - 1e-9);
  return Array.from({ length: count + 1 }, (_, index) => Number((index * step).toPrecision(6)));
}

const whole = (message) => PHASES.reduce((sum, [, field]) => sum + (message[field] ?? 0), 0);

/** Draws them, where they are not drawn yet. */
export function paint() {
  const place = byId("charts");
  const width = Math.max(280, Math.floor(place.clientWidth));
  const shape = JSON.stringify([width, messages.map(({ time, connection }) => [time, connection.id])]);
  if (shape === painted) return;
  painted = shape;
  if (messages.length === 0) {
    place.replaceChildren(element("p", { class: "empty" }, "No message has been handed over yet."));
    return;
  }
  const newest = [...messages].reverse();
  place.replaceChildren(chart(newest, width), numbers(newest));
}

function chart(newest, width) {
  const axis = ticks(Math.max(0.001, ...newest.map(whole)));
  const end = axis[axis.length - 1];
  const bottom = newest.length * ROW + 4;
  const scale = (seconds) => 4 + (seconds / end) * (width - 30);
  const svg = drawn("svg", {
    width,
    height: bottom + 40,
    viewBox: `0 0 ${width} ${bottom + 40}`,
    role: "img",
    "aria-label": `The phases of the last ${newest.length} messages, in seconds; the newest took ${duration(whole(newest[0]))}. The numbers follow as a table.`,
  });
  for (const tick of axis) {
    svg.append(
      drawn("line", { class: "grid", x1: scale(tick), x2: scale(tick), y1: 0, y2: bottom }),
      drawn("text", { class: "tick", x: scale(tick), y: bottom + 15 }, String(tick)),
    );
  }
  svg.append(drawn("text", { class: "axis", x: width / 2, y: bottom + 33 }, "seconds since DATA"));
  newest.forEach((message, row) => {
    const y = row * ROW;
    const size = message.size_bytes === undefined ? "" : `, ${bytes(message.size_bytes)}`;
    const label = `${program(message.process)}, ${message.connection.role}${size} → ${message.code ?? "no reply"}`;
    svg.append(drawn("text", { class: "bar-label", x: 4, y: y + 13 }, label.length * 6.2 > width ? `${label.slice(0, Math.floor(width / 6.4))}…` : label));
    let from = 0;
    for (const [name, field] of PHASES) {
      const seconds = message[field];
      if (seconds === undefined) continue;
      const length = Math.max(1.5, scale(from + seconds) - scale(from));
      svg.append(
        drawn(
          "rect",
          { class: `bar bar-${name.replace(" ", "-")}`, x: scale(from), y: y + 18, width: length, height: BAR, rx: 2 },
          drawn("title", {}, `${name}: ${duration(seconds)}`),
        ),
      );
      from += seconds;
    }
  });
  return svg;
}

function numbers(newest) {
  const wasOpen = byId("charts").querySelector("details")?.open;
  const heading = (text) => element("th", { scope: "col" }, text);
  const cells = (message) => PHASES.map(([, field]) => element("td", { class: "number" }, duration(message[field])));
  return element(
    "details",
    { open: wasOpen },
    element("summary", {}, "In numbers"),
    element(
      "table",
      { class: "evidence" },
      element("caption", { class: "hidden" }, "The phases of the last messages"),
      element("thead", {}, element("tr", {}, ["Time", "Owner", ...PHASES.map(([name]) => name), "Reply"].map(heading))),
      element(
        "tbody",
        {},
        newest.map((message) =>
          element(
            "tr",
            {},
            element("td", {}, clock(message.time)),
            element("td", {}, `${program(message.process)}, ${message.connection.role}`),
            cells(message),
            element("td", {}, String(message.code ?? "none")),
          ),
        ),
      ),
    ),
  );
}
