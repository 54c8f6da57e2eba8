// Follows the agent, and has the parts of the page drawn.

import { byId, say } from "./dom.js";
import { clock } from "./words.js";
import * as charts from "./charts.js";
import * as drawing from "./drawing.js";
import * as log from "./log.js";
import * as table from "./table.js";
import * as verdict from "./verdict.js";

/** The shortest time from one look at the connections to the next; a slow answer makes it longer. */
const PACE = 700;

/** The agent says something every five seconds: so long without a word, and it is gone. */
const SILENCE = 15_000;

/** When to knock again where the agent has sent us away. */
const AGAIN = 5_000;

/** An answer that takes longer is late. */
const LATE = 3_000;

/** What is known; `answered` when the agent has answered once. */
const known = { answered: false, connections: [], total: 0, interceptions: [], dropped: 0, run: undefined, number: 0 };

let stream;
let heard = Date.now();
let goneSince;
/** When the question began that has no answer yet. */
let askedAt;
let failed = false;

function status(state, text) {
  const place = byId("status");
  place.dataset.state = state;
  say(place, text);
}

/** Says how the page stands, while the agent can be heard. */
function standing() {
  if (failed) status("gone", "the agent did not answer a question; asking again");
  else if (askedAt !== undefined && Date.now() - askedAt > LATE) status("waiting", "the agent takes long to answer");
  else if (known.answered) status("live", "live");
  else status("waiting", "asking the agent");
}

function gone() {
  goneSince ??= new Date().toISOString();
  status("gone", `the agent does not answer since ${clock(goneSince).slice(0, 8)}; trying again`);
}

/** Opens the stream. The browser opens it again by itself where it breaks, and goes on from the last observation. */
function follow() {
  stream?.close();
  const mine = new EventSource("api/v1/observations");
  stream = mine;
  const on = (name, act) =>
    mine.addEventListener(name, (event) => {
      if (stream !== mine) return;
      heard = Date.now();
      act(event);
    });
  on("hello", ({ data }) => {
    const { run, version } = JSON.parse(data);
    if (known.run !== undefined && run !== known.run) {
      log.clear();
      charts.clear();
    }
    if (run !== known.run) known.number = 0;
    known.run = run;
    goneSince = undefined;
    say(byId("version"), `smtp-observer ${version}`);
    standing();
    look();
  });
  on("observation", ({ data, lastEventId }) => take(JSON.parse(data), Number(lastEventId.split("-").pop())));
  on("now", () => {
    goneSince = undefined;
    standing();
    look();
  });
  on("full", () => status("waiting", "too many look at this agent: this page comes again in a while"));
  mine.addEventListener("error", () => {
    if (stream !== mine) return;
    if (byId("status").dataset.state !== "waiting") gone();
    if (mine.readyState === EventSource.CLOSED) setTimeout(() => stream === mine && follow(), AGAIN);
  });
}

function take(observation, number) {
  // After a pause the agent tells again what it still has.
  if (number <= known.number) return;
  if (known.number > 0 && number > known.number + 1) log.miss(number - known.number - 1);
  known.number = number;
  log.take(observation);
  charts.take(observation);
  drawing.pulse(observation.connection.id);
  if (observation.connection.id === table.pickedId()) refreshPicked = true;
  look();
}

let looking = false;
let again = false;
let refreshPicked = false;

/** Asks for connections and interceptions, soon and not too often. */
async function look() {
  if (looking) {
    again = true;
    return;
  }
  looking = true;
  const begun = Date.now();
  askedAt = begun;
  try {
    const [connections, interceptions] = await Promise.all(["connections", "interceptions"].map(ask));
    known.connections = connections.body;
    known.total = connections.total ?? connections.body.length;
    known.interceptions = interceptions.body;
    known.dropped = interceptions.dropped;
    known.answered = true;
    failed = false;
    paint();
    if (refreshPicked) {
      refreshPicked = false;
      await table.refresh(table.pickedId());
    }
  } catch {
    failed = true;
    again = true;
  }
  askedAt = undefined;
  // Where the agent is gone, the stream says so.
  if (goneSince === undefined && stream) standing();
  const took = Date.now() - begun;
  setTimeout(
    () => {
      looking = false;
      if (!again) return;
      again = false;
      look();
    },
    Math.max(PACE, 4 * took),
  );
}

async function ask(what) {
  const response = await fetch(`api/v1/${what}`, { signal: AbortSignal.timeout(SILENCE) });
  if (!response.ok) throw new Error(String(response.status));
  const total = response.headers.get("x-total-count");
  const dropped = Number(response.headers.get("x-dropped-count") ?? 0);
  return { body: await response.json(), total: total === null ? undefined : Number(total), dropped };
}

function paint() {
  // What is not known yet is not said to be nothing.
  if (!known.answered) return;
  const open = new Set(known.connections.filter((row) => row.closed === undefined).map((row) => row.connection.id));
  const isAnythingSeen = known.number > 0 || known.total > 0;
  verdict.paint(known.interceptions, open, isAnythingSeen, known.dropped);
  drawing.paint(known.connections, known.interceptions, table.filter);
  table.paint(known.connections, known.total);
  charts.paint();
}

table.start(async (id) => {
  try {
    return (await ask(`connections/${encodeURIComponent(id)}`)).body;
  } catch {
    return undefined;
  }
});
log.start();
new ResizeObserver(paint).observe(byId("drawing"));

// A page that nobody sees follows nothing.
document.addEventListener("visibilitychange", () => {
  if (document.hidden) {
    stream?.close();
    stream = undefined;
    status("waiting", "paused while nobody looks");
  } else follow();
});

setInterval(() => {
  if (stream && goneSince === undefined && askedAt !== undefined) standing();
  if (!stream || Date.now() - heard < SILENCE) return;
  gone();
  heard = Date.now();
  follow();
}, 1000);

follow();
