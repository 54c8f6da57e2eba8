// The connections of now: sorted by a heading, filtered by a word, each with what was said on it last.

import { byId, element, say } from "./dom.js";
import { age, bytes, clock, counted, dropped, endpoint, program, user } from "./words.js";

/** Most rows that are drawn; the filter looks in all. */
const MOST = 300;

const clientEnd = ({ connection }) => (connection.role === "client" ? connection.local : connection.remote);
const peer = ({ connection }) => connection.remote;
const owner = ({ process }) => (process ? `${program(process)} ${process.pid} ${user(process)}` : "not known");
const last = ({ last: exchange }) => exchange?.text ?? "";
const reason = (row) => [row.verdict, row.note].filter(Boolean).join(", ");
const total = (row) => (row.bytes_sent === undefined ? -1 : row.bytes_sent + row.bytes_received);
const moved = (row) => (row.bytes_sent === undefined ? "" : `${bytes(row.bytes_sent)} / ${bytes(row.bytes_received)}`);

const COLUMNS = [
  { name: "Client", text: (row) => endpoint(clientEnd(row)) },
  { name: "Owner", text: owner, long: true },
  { name: "Role", text: (row) => row.connection.role },
  { name: "Peer", text: (row) => endpoint(peer(row)) },
  { name: "State", text: (row) => row.state },
  { name: "Last reply", text: last, long: true },
  { name: "Age", text: (row) => age(row.age_seconds), order: (row) => row.age_seconds, number: true },
  { name: "Sent / received", text: moved, order: total, number: true },
  { name: "Reason or verdict", text: reason, long: true },
];

const compare = new Intl.Collator("en", { numeric: true }).compare;

const shownRows = new Map();
let sorted = { column: 6, down: false };
let picked;
let listing = { rows: [], total: 0 };
let askFor = async () => undefined;

/** Makes the headings work; `ask` brings a connection with its observations. */
export function start(ask) {
  askFor = ask;
  byId("headings").replaceChildren(
    ...COLUMNS.map(({ name, number }, index) =>
      element(
        "th",
        { scope: "col", class: number && "number" },
        element("button", { type: "button", onclick: () => sortBy(index) }, name),
      ),
    ),
  );
  byId("filter").addEventListener("input", draw);
  markSorted();
}

/** Filters by a word. */
export function filter(word) {
  byId("filter").value = word;
  draw();
  byId("connections").scrollIntoView({ block: "start" });
}

function sortBy(column) {
  sorted = { column, down: sorted.column === column && !sorted.down };
  markSorted();
  draw();
}

function markSorted() {
  [...byId("headings").children].forEach((heading, index) => {
    if (index !== sorted.column) heading.removeAttribute("aria-sort");
    else heading.setAttribute("aria-sort", sorted.down ? "descending" : "ascending");
  });
}

/** Takes new connections, of so many in all. */
export function paint(rows, count) {
  listing = { rows, total: count };
  draw();
}

function matching(rows) {
  const words = byId("filter").value.toLowerCase().split(/\s+/).filter(Boolean);
  if (words.length === 0) return rows;
  return rows.filter((row) => {
    const text = `${COLUMNS.map((column) => column.text(row)).join(" ")} ${row.connection.id} ${row.process?.executable ?? ""}`.toLowerCase();
    return words.every((word) => text.includes(word));
  });
}

function draw() {
  const { column, down } = sorted;
  const { text, order } = COLUMNS[column];
  const matched = matching(listing.rows).map((row) => ({ row, key: order ? order(row) : text(row) }));
  matched.sort((a, b) => (order ? a.key - b.key : compare(a.key, b.key)) || compare(a.row.connection.id, b.row.connection.id));
  if (down) matched.reverse();
  const body = byId("rows");
  const focused = document.activeElement;
  const wanted = [];
  for (const { row } of matched.slice(0, MOST)) {
    const known = shownRows.get(row.connection.id) ?? make(row);
    update(known, row);
    wanted.push(known.line);
    if (picked?.id === row.connection.id) wanted.push(picked.detail);
  }
  wanted.forEach((line, index) => {
    if (body.children[index] !== line) body.insertBefore(line, body.children[index] ?? null);
  });
  while (body.children.length > wanted.length) body.lastElementChild.remove();
  const ids = new Set(listing.rows.map((row) => row.connection.id));
  for (const id of shownRows.keys()) if (!ids.has(id)) shownRows.delete(id);
  if (focused && focused !== document.activeElement && focused.isConnected) focused.focus();
  words(matched.length);
}

function words(count) {
  const { rows, total: all } = listing;
  const parts = [count === rows.length ? counted(count, "connection", "connections") : `${count} of ${counted(rows.length, "connection", "connections")}`];
  if (count > MOST) parts.push(`the first ${MOST} are shown`);
  if (all > rows.length) parts.push(`of ${all.toLocaleString("en")}, those heard last`);
  say(byId("count"), parts.join("; "));
  byId("none").hidden = count > 0;
  say(byId("none"), rows.length === 0 ? "No connection is open, and none was closed lately." : "No connection has these words.");
}

function make(row) {
  const { id } = row.connection;
  const button = element("button", { type: "button", class: "open", "aria-expanded": "false" });
  const cells = COLUMNS.map(({ name, number, long }, index) =>
    element("td", { "data-name": name, class: number ? "number" : long && "long" }, index === 0 ? button : undefined),
  );
  const line = element("tr", { "data-id": id, onclick: () => toggle(id) }, cells);
  const known = { line, cells, button };
  shownRows.set(id, known);
  return known;
}

function update({ line, cells, button }, row) {
  COLUMNS.forEach(({ text }, index) => say(index === 0 ? button : cells[index], text(row)));
  if (line.dataset.state !== row.state) line.dataset.state = row.state;
  line.dataset.intercepted = row.intercepted;
}

function toggle(id) {
  const before = picked;
  picked = undefined;
  if (before) shownRows.get(before.id)?.button.setAttribute("aria-expanded", "false");
  if (before?.id !== id) {
    const list = element("ol", { class: "log" }, element("li", { class: "quiet" }, "asking the agent"));
    const cell = element("td", { colspan: COLUMNS.length }, element("h3", {}, "What was observed of it last"), list);
    picked = { id, list, detail: element("tr", { class: "detail" }, cell) };
    shownRows.get(id)?.button.setAttribute("aria-expanded", "true");
    refresh(id);
  }
  draw();
}

/** Brings what is new of a connection, if it is the one that is shown. */
export async function refresh(id) {
  if (picked?.id !== id) return;
  const { list } = picked;
  const row = await askFor(id);
  if (!row) return;
  const { process, connection } = row;
  const about = [
    `${connection.role} ${endpoint(connection.local)}, peer ${endpoint(connection.remote)}`,
    process?.command_line && `arguments: ${process.command_line}`,
    process?.parent && `started by ${process.parent.name}, pid ${process.parent.pid}`,
    process?.systemd_unit,
  ].filter(Boolean);
  list.replaceChildren(
    element("li", { class: "quiet" }, about.join("; ")),
    ...(row.observations_dropped ? [element("li", { class: "quiet" }, dropped(row.observations_dropped))] : []),
    ...row.observations
      .filter(({ display }) => display)
      .map(({ display, event, time }) =>
        element("li", { "data-event": event, "data-level": display.level }, element("time", { datetime: time }, clock(time)), " ", display.text),
      ),
  );
}

/** The connection whose observations are shown. */
export const pickedId = () => picked?.id;
