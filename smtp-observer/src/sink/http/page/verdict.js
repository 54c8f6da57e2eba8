// The answer: who is in the middle, and how that is known.

import { byId, element, say } from "./dom.js";
import { clock, counted, dropped, endpoint, program, user, weight } from "./words.js";

const ORDER = ["hidden", "suspected", "led", "chosen"];

/** Most programs that get a card. */
const MOST = 12;

const MEANING = {
  transparent_interceptor: "Its client believes to speak with the server, and speaks with this program.",
  likely_interceptor: "Its client most likely believes to speak with the server, and speaks with this program.",
  transparent_l4: "It passes on every byte, and its client knows nothing of it.",
  transparent_relay: "It takes mail that its client sends to another server, and sends it on later.",
  redirected: "Its client asked for another address and was led to this server: a published port, a virtual address, or a redirect.",
  inline_proxy: "Its client asked for this program, which speaks with the server at once.",
  relay: "Its client asked for this program, a mail server that passes mail on.",
  suspected_middlebox: "The replies do not fit one server: somebody on the way may answer in its name.",
};

const opened = new Set();
let painted = "";

/** The interceptions of one program, the latest last. */
export function group(interceptions) {
  const groups = new Map();
  for (const found of interceptions) {
    const who = found.interceptor ? `pid ${found.interceptor.pid}` : `at ${endpoint(found.client.requested)}`;
    const key = `${found.verdict} ${who}`;
    const known = groups.get(key) ?? { key, weight: weight(found), all: [] };
    known.all.push(found);
    groups.set(key, known);
  }
  const sorted = [...groups.values()];
  for (const each of sorted) {
    each.best = each.all.reduce((best, found) => (found.confidence >= best.confidence ? found : best));
    each.last = each.all[each.all.length - 1].time;
  }
  return sorted.sort(
    (a, b) => ORDER.indexOf(a.weight) - ORDER.indexOf(b.weight) || (a.last < b.last ? 1 : -1),
  );
}

const names = (all) => [...new Set(all)];

function listed(items, most = 3) {
  if (items.length <= 1) return items.join("");
  if (items.length <= most) return `${items.slice(0, -1).join(", ")} and ${items[items.length - 1]}`;
  return `${items.slice(0, most).join(", ")} and ${items.length - most} more`;
}

const nameOf = ({ best }) => (best.interceptor ? program(best.interceptor) : "A program on another host");

/** Shows the answer for these interceptions, with those connections open. */
export function paint(interceptions, openIds, isAnythingSeen, count) {
  const groups = group(interceptions);
  headline(groups, openIds, isAnythingSeen);
  const shape = count + JSON.stringify(groups.map(({ key, all, best, last }) => [key, all.length, best.evidence.length, best.confidence, last]));
  if (shape === painted) return;
  painted = shape;
  byId("cards-section").hidden = groups.length === 0;
  byId("cards").replaceChildren(
    ...groups.slice(0, MOST).map(card),
    ...(groups.length > MOST ? [element("p", { class: "quiet" }, `and ${groups.length - MOST} more programs`)] : []),
    ...(count > 0 ? [element("p", { class: "quiet" }, dropped(count))] : []),
  );
}

function headline(groups, openIds, isAnythingSeen) {
  const worst = groups.filter((each) => each.weight === "hidden");
  const suspected = groups.filter((each) => each.weight === "suspected");
  const title = byId("answer-title");
  const lead = byId("answer-lead");
  const told = worst.length > 0 ? worst : suspected;
  byId("answer").dataset.weight = worst.length > 0 ? "hidden" : suspected.length > 0 ? "suspected" : "none";
  if (told.length === 0) {
    say(title, !isAnythingSeen ? "Nothing seen yet" : groups.length > 0 ? "No hidden proxy found" : "No proxy found");
    const led = groups.some((each) => each.weight === "led");
    const found = led ? " Some clients are led to another server than they asked for." : " What is between them, the clients chose themselves.";
    const others = groups.length > 0 ? found : "";
    say(
      lead,
      !isAnythingSeen
        ? "No SMTP has been seen yet: what comes will be shown here at once."
        : `Of what was seen, no conversation goes through a program that its client knows nothing of.${others}`,
    );
    return;
  }
  const all = told.flatMap((each) => each.all);
  const now = all.some((found) => openIds.has(found.client.connection_id));
  const who = names(told.map(nameOf));
  const verb = who.length === 1 ? (now ? "is" : "was") : now ? "are" : "were";
  say(title, `${listed(who)} ${worst.length === 0 ? (now ? "may be" : "may have been") : verb} in the middle`);
  const clients = names(all.map((found) => program(found.client.process)));
  const servers = names(all.map((found) => endpoint(found.client.requested)));
  const last = told.map((each) => each.last).sort().pop();
  say(
    lead,
    `Between ${listed(clients)} and ${listed(servers)}, in ${counted(all.length, "conversation", "conversations")}; found last at ${clock(last).slice(0, 8)}.`,
  );
}

function card(each) {
  const { best, all } = each;
  const { interceptor } = best;
  const percent = Math.round(best.confidence * 100);
  const fact = (name, ...value) => element("div", {}, element("dt", {}, name), element("dd", {}, ...value));
  const facts = element(
    "dl",
    {},
    fact("Verdict", element("span", { class: "tag" }, best.verdict)),
    interceptor && fact("Program", element("code", {}, [interceptor.executable ?? interceptor.name, interceptor.script].filter(Boolean).join(" "))),
    interceptor && fact("Process", `pid ${interceptor.pid}, ${user(interceptor)}`),
    interceptor?.parent && fact("Started by", `${interceptor.parent.name}, pid ${interceptor.parent.pid}`),
    interceptor?.systemd_unit && fact("Unit", interceptor.systemd_unit),
    best.product && fact("Speaks like", best.product),
    fact("Method", best.method),
    fact("Confidence", element("meter", { min: 0, max: 1, value: best.confidence, "aria-label": "Confidence" }), ` ${percent} %`),
    fact("Client", `${program(best.client.process)}${best.client.process ? `, pid ${best.client.process.pid}` : ""}`),
    fact("Asked for", endpoint(best.client.requested)),
    best.upstream && fact("Goes on to", `${endpoint(best.upstream.remote)}${best.upstream.source_preserved ? ", with the client's address" : ""}`),
    fact("Seen in", counted(all.length, "conversation", "conversations")),
  );
  const evidence = element(
    "details",
    {
      open: opened.has(each.key),
      ontoggle: (event) => (event.target.open ? opened.add(each.key) : opened.delete(each.key)),
    },
    element("summary", {}, `Evidence (${best.evidence.length})`),
    element(
      "table",
      { class: "evidence" },
      element("caption", { class: "hidden" }, `What leads to ${best.verdict}`),
      element("thead", {}, element("tr", {}, element("th", { scope: "col" }, "Kind"), element("th", { scope: "col" }, "What was seen"))),
      element(
        "tbody",
        {},
        best.evidence.map(({ kind, detail }) => element("tr", {}, element("th", { scope: "row" }, kind), element("td", {}, detail))),
      ),
    ),
  );
  return element(
    "article",
    { class: "card", "data-weight": each.weight },
    element("h3", {}, nameOf(each)),
    element("p", {}, MEANING[best.verdict] ?? ""),
    facts,
    evidence,
  );
}
