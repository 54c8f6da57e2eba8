// Who talks to whom: clients at the left, what is in the middle, servers at the right.

import { byId, drawn, element } from "./dom.js";
import { counted, endpoint, program, user, weight } from "./words.js";

/** Most boxes in a column. */
const MOST = 10;

const HEIGHT = 74;
const GAP = 20;
const TOP = 36;

/** What a line takes that goes around the middle, with its words. */
const DETOUR = 34;

/** The picture's content: boxes by column, and lines between them. */
export function relations(connections, interceptions) {
  const boxes = [new Map(), new Map(), new Map()];
  const lines = new Map();
  const box = (column, key, title, details = {}) => {
    const known = boxes[column].get(key) ?? { column, key: `${column} ${key}`, title, pids: new Set(), ...details };
    boxes[column].set(key, known);
    return known;
  };
  const line = (from, to, kind, over, id, label) => {
    const key = `${from.key} → ${to.key} ${kind}`;
    const known = lines.get(key) ?? { key, from, to, kind, over: true, ids: new Set(), label };
    known.over &&= over;
    known.ids.add(id);
    lines.set(key, known);
  };

  const byEnds = new Map(connections.map((row) => [`${endpoint(row.connection.local)} ${endpoint(row.connection.remote)}`, row]));
  const otherEnd = ({ connection }) => byEnds.get(`${endpoint(connection.remote)} ${endpoint(connection.local)}`);
  const middles = new Map();
  for (const found of interceptions) if (found.interceptor) middles.set(found.interceptor.pid, found);
  const foundOf = new Map(interceptions.map((found) => [found.client.connection_id, found]));
  const rows = new Map(connections.map((row) => [row.connection.id, row]));

  const client = (process, fallback) => {
    const known = box(0, process ? `program ${program(process)} ${user(process)}` : fallback, process ? program(process) : fallback);
    if (process) {
      known.pids.add(process.pid);
      known.user = user(process);
    } else known.note = "not known";
    return known;
  };
  const server = (at, process) => {
    const known = box(2, endpoint(at), endpoint(at));
    if (process && !middles.has(process.pid)) {
      known.title = program(process);
      known.note = endpoint(at);
      known.pids.add(process.pid);
    }
    return known;
  };
  const middle = (found) => {
    const key = found.interceptor ? `pid ${found.interceptor.pid}` : `at ${endpoint(found.client.requested)}`;
    const known = box(1, key, found.interceptor ? program(found.interceptor) : "another host");
    known.weight = weight(found);
    known.note = found.interceptor ? `pid ${found.interceptor.pid}, ${user(found.interceptor)}` : "not seen from here";
    known.extra = `${found.verdict}, ${Math.round(found.confidence * 100)} %`;
    return known;
  };

  for (const found of interceptions) {
    const row = rows.get(found.client.connection_id);
    const over = !row || row.closed !== undefined;
    const from = client(found.client.process, "a client");
    const via = middle(found);
    const id = found.client.connection_id;
    from.first = via.first = true;
    line(from, via, via.weight, over, id, found.method);
    const upstream = found.upstream && rows.get(found.upstream.connection_id);
    const goal = found.upstream?.remote ?? (["chosen", "led"].includes(via.weight) ? undefined : found.client.requested);
    if (goal) {
      const to = server(goal, upstream && otherEnd(upstream)?.process);
      to.first = true;
      line(via, to, via.weight, over, found.upstream?.connection_id ?? id);
    }
    if (via.weight !== "chosen") {
      const asked = server(found.client.requested);
      asked.first = true;
      line(from, asked, "asked", over, id, `what ${from.title} asked for`);
    }
  }
  for (const row of connections) {
    const { connection, process } = row;
    const over = row.closed !== undefined;
    const isMiddle = process && middles.has(process.pid);
    if (foundOf.has(connection.id)) continue;
    if (connection.role === "client") {
      const to = server(connection.remote, otherEnd(row)?.process);
      if (!isMiddle) line(client(process, "not known"), to, "plain", over, connection.id);
      else if (!interceptions.some((found) => found.upstream?.connection_id === connection.id)) {
        const found = middles.get(process.pid);
        line(middle(found), to, weight(found), over, connection.id);
      }
    } else if (!otherEnd(row) && !isMiddle) {
      line(client(undefined, connection.remote.address), server(connection.local, process), "plain", over, connection.id);
    }
  }
  return { boxes: boxes.map(cutColumn), lines: [...lines.values()] };
}

function cutColumn(column) {
  const all = [...column.values()].sort((a, b) => Boolean(b.first) - Boolean(a.first));
  return { shown: all.slice(0, MOST), more: Math.max(0, all.length - MOST) };
}

const cut = (text, most) => (text.length > most ? `${text.slice(0, Math.max(1, most - 1))}…` : text);

function noteOf(box) {
  if (box.note) return box.note;
  if (box.pids.size > 1) return `${counted(box.pids.size, "process", "processes")}, ${box.user}`;
  const [pid] = box.pids;
  return pid === undefined ? "" : `pid ${pid}, ${box.user}`;
}

let painted = "";
let paths = new Map();

/** Draws it into the page, where it differs from what stands there. */
export function paint(connections, interceptions, pick) {
  const place = byId("drawing");
  const width = Math.max(300, Math.floor(place.clientWidth));
  const { boxes, lines } = relations(connections, interceptions);
  const shape = JSON.stringify([
    width,
    boxes.map(({ shown, more }) => [shown.map((box) => [box.key, box.title, noteOf(box), box.extra, box.weight]), more]),
    lines.map(({ key, over, ids }) => [key, over, ids.size]),
  ]);
  if (shape !== painted) {
    painted = shape;
    place.replaceChildren(lines.length > 0 ? picture(width, boxes, lines, pick) : empty());
    // Screen readers are told what the lines show.
    if (lines.length > 0) place.append(element("ul", { class: "hidden" }, lines.map((line) => element("li", {}, sentence(line)))));
  }
  for (const line of lines) for (const id of line.ids) paths.set(id, paths.get(line.key));
}

/** Shows that something was said on a connection. */
export function pulse(id) {
  const path = paths.get(id);
  if (!path || matchMedia("(prefers-reduced-motion: reduce)").matches) return;
  path.classList.remove("pulse");
  path.getBoundingClientRect();
  path.classList.add("pulse");
}

function sentence({ from, to, kind, over, ids }) {
  const how = { plain: "", hidden: ", of which the client knows nothing", suspected: ", as is suspected", led: ", where it was led", chosen: ", by the client's choice", asked: ", as it was asked for" }[kind];
  return `${from.title} ${over ? "talked" : "talks"} to ${to.title}${how}, ${counted(ids.size, "connection", "connections")}`;
}

const empty = () => element("p", { class: "empty" }, "No SMTP connection now.");

function picture(width, boxes, lines, pick) {
  const hasMiddle = boxes[1].shown.length > 0;
  const columns = hasMiddle ? 3 : 2;
  const gap = Math.max(18, Math.min(150, width * 0.11 - 24));
  const boxWidth = Math.min(270, (width - gap * (columns - 1)) / columns);
  const step = (width - boxWidth) / (columns - 1);
  const x = hasMiddle ? [0, step, 2 * step] : [0, 0, step];
  const rows = Math.max(...boxes.map(({ shown, more }) => shown.length + (more > 0 ? 0.6 : 0)));
  // What is in the middle has the first rows, and room below them for the lines that go around it.
  const first = Math.max(...boxes.map(({ shown }) => shown.filter((box) => box.first).length));
  const detour = lines.some((line) => line.kind === "asked") ? DETOUR : 0;
  const top = (row) => TOP + row * (HEIGHT + GAP) + (row >= first ? detour : 0);
  const low = top(first) - GAP - 4;
  const height = Math.max(top(rows), low + GAP);
  const places = new Map();
  for (const [column, { shown }] of boxes.entries()) {
    shown.forEach((box, row) => places.set(box.key, { x: x[column], y: top(row) }));
  }
  const svg = drawn(
    "svg",
    { class: width < 560 ? "narrow" : null, width, height, viewBox: `0 0 ${width} ${height}`, role: "group", "aria-label": `Who talks to whom: ${lines.map(sentence).slice(0, 6).join("; ")}` },
    drawn("defs", {}, ["plain", "hidden", "suspected", "led", "chosen", "asked"].map(arrow)),
  );
  const headings = width < 560 ? ["Clients", "Between", "Servers"] : ["Clients", "In the middle", "Servers"];
  for (const column of hasMiddle ? [0, 1, 2] : [0, 2]) {
    svg.append(drawn("text", { class: "column", x: x[column] + boxWidth / 2, y: 14 }, headings[column]));
    const { shown, more } = boxes[column];
    if (more > 0) {
      const y = top(shown.length) + 14;
      svg.append(drawn("text", { class: "column", x: x[column] + boxWidth / 2, y }, `and ${more} more`));
    }
  }
  paths = new Map();
  // What matters most is drawn last, on top.
  const order = ["asked", "plain", "chosen", "led", "suspected", "hidden"];
  for (const line of [...lines].sort((a, b) => order.indexOf(a.kind) - order.indexOf(b.kind))) {
    const [from, to] = [places.get(line.from.key), places.get(line.to.key)];
    if (from && to) svg.append(...connect(line, from, to, boxWidth, low));
  }
  for (const { shown } of boxes) for (const box of shown) svg.append(boxed(box, places.get(box.key), boxWidth, pick));
  return svg;
}

function arrow(kind) {
  return drawn(
    "marker",
    { id: `arrow-${kind}`, class: `arrow arrow-${kind}`, viewBox: "0 0 8 8", refX: 7, refY: 4, markerWidth: 7, markerHeight: 7, markerUnits: "userSpaceOnUse", orient: "auto" },
    drawn("path", { d: "M0 0 8 4 0 8z" }),
  );
}

function connect(line, from, to, boxWidth, low) {
  const [x1, y1, x2, y2] = [from.x + boxWidth, from.y + HEIGHT / 2, to.x - 2, to.y + HEIGHT / 2];
  const bend = (x2 - x1) / 2;
  let d = `M${x1} ${y1}C${x1 + bend} ${y1} ${x2 - bend} ${y2} ${x2} ${y2}`;
  let label = [(x1 + x2) / 2, (y1 + y2) / 2 - 8];
  if (line.kind === "asked") {
    // Around what is in the middle, as the client has it.
    const [a, b] = [from.x + boxWidth / 2, to.x + boxWidth / 2];
    d = `M${a} ${from.y + HEIGHT + 3}C${a} ${low} ${a} ${low} ${a + 40} ${low}L${b - 40} ${low}C${b} ${low} ${b} ${low} ${b} ${to.y + HEIGHT + 3}`;
    label = [(a + b) / 2, low - 8];
  }
  const path = drawn("path", {
    class: `line line-${line.kind}${line.over ? " over" : ""}`,
    d,
    "marker-end": `url(#arrow-${line.kind})`,
  });
  paths.set(line.key, path);
  const count = line.ids.size > 1 ? `×${line.ids.size}` : "";
  const text = [line.label, count].filter(Boolean).join(" ");
  const fits = text.length * 7 < x2 - x1 - 8;
  return [path, ...(fits ? [drawn("text", { class: `label label-${line.kind}`, x: label[0], y: label[1] }, text)] : [])];
}

function boxed(box, { x, y }, width, pick) {
  const narrow = width < 160;
  const characters = Math.floor((width - (narrow ? 14 : 22)) / (narrow ? 6.7 : 8.6));
  const small = Math.floor((width - 22) / (narrow ? 5.8 : 6.6));
  const note = noteOf(box);
  const choose = () => pick(box.title);
  const text = (name, dy, content, most) => content && drawn("text", { class: name, x: x + (narrow ? 8 : 16), y: y + dy }, cut(content, most));
  const three = Boolean(box.extra);
  return drawn(
    "g",
    {
      class: `box box-${box.weight ?? "plain"}`,
      tabindex: 0,
      role: "button",
      "aria-label": `${box.title}${note ? `, ${note}` : ""}${box.extra ? `, ${box.extra}` : ""}: show its connections`,
      onclick: choose,
      onkeydown: (event) => {
        if (event.key !== "Enter" && event.key !== " ") return;
        event.preventDefault();
        choose();
      },
    },
    drawn("title", {}, [box.title, note, box.extra].filter(Boolean).join("\n")),
    drawn("rect", { x, y, width, height: HEIGHT, rx: 10 }),
    text("box-title", three ? 26 : note ? 33 : 42, box.title, characters),
    text("box-note", three ? 45 : 54, note, small),
    three && text("box-extra", 62, box.extra, small),
  );
}
