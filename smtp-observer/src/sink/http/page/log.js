// The latest observations, the newest first.

import { byId, element, say } from "./dom.js";
import { clock, program } from "./words.js";

/** Most that are shown. */
const MOST = 80;

let waiting = [];
let paused = false;
let drawing = false;
let lost = 0;

/** Makes the button work. */
export function start() {
  const button = byId("pause");
  button.addEventListener("click", () => {
    paused = !paused;
    button.setAttribute("aria-pressed", String(paused));
    say(button, paused ? "Go on" : "Pause");
    if (!paused) soon();
  });
}

/** Forgets all: another agent speaks. */
export function clear() {
  waiting = [];
  byId("log").replaceChildren();
}

/** Takes one; it is drawn soon. */
export function take(observation) {
  // What it says is in another's text.
  if (!observation.display) return;
  waiting.push(observation);
  if (waiting.length > MOST) waiting.shift();
  if (!paused) soon();
}

/** Counts what did not arrive. */
export function miss(count) {
  lost += count;
  say(byId("lost"), `${lost.toLocaleString("en")} not shown: they came faster than this page took them`);
}

function soon() {
  if (drawing) return;
  drawing = true;
  setTimeout(draw, 100);
}

function draw() {
  drawing = false;
  const list = byId("log");
  for (const observation of waiting) list.prepend(line(observation));
  waiting = [];
  while (list.children.length > MOST) list.lastElementChild.remove();
}

function line(observation) {
  const { process, connection, display, event, time } = observation;
  return element(
    "li",
    { "data-event": event, "data-level": display.level, "data-id": connection.id },
    element("time", { datetime: time }, clock(time)),
    " ",
    element("b", {}, process ? `${program(process)} ${process.pid}` : "not known"),
    " ",
    element("i", {}, connection.role),
    " ",
    display.text,
  );
}
