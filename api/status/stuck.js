// The stuck reservations, by reason: since when, what is known of it, and the command that helps.
import { command, find, journal, link, make, pager, setText, showFacts, startOfPage, sync, tell } from "./dom.js";
import { bulk, commands, inOrder } from "./rules.js";
import { list, urlFlag } from "./server.js";
import { ago, amount, amounts, count, metadataWords, scopesWords, span } from "./words.js";

const pagesRead = 1; // of 500
const cardsShown = 10;

// What each reason means. In which order they come is in rules.js.
const reasons = {
  paused: ["paused", "Somebody paused its workflow in Temporal, so the workflow does not run. Commits and releases go past it."],
  task_failing: ["task failing", "The workflow's task fails, so the workflow does not run. Its code or its worker is at fault."],
  settlement_failing: ["settlement failing", "The workflow cannot settle it, and keeps trying."],
  orphan: ["orphan", "No open workflow guards it. The reconciler adopts it within minutes, where a worker runs."],
  expiry_missed: ["expiry missed", "Its lease has ended, and nothing has expired it. The sweeper does that where a worker runs."],
  review: ["in review", "It has expired, and its amounts stay set aside until somebody decides what was used."],
};
const title = (reason) => reasons[reason]?.[0] ?? reason;
const meaning = (reason) => reasons[reason]?.[1] ?? "";

const section = find("#stuck");
let latest = [];
let first = 0;
let told = null;
let refused = ""; // why the key may not ask, which stays so until somebody signs in again

export async function load() {
  try {
    return refused ? null : await list("v1/reservations?stuck=true", pagesRead);
  } catch (fault) {
    if (fault.status !== 403) throw fault;
    refused = fault.message;
    return null;
  }
}

export function show(page) {
  if (refused) {
    setText(find("#stuck-count"), "–");
    setText(find("#stuck-brief"), "not shown to this key");
    setText(find(".lead", section), `Not shown to this key. ${refused}`);
    return;
  }
  showAll(page);
}

function showAll({ data, more, incomplete = "", searches }) {
  latest = data.sort(inOrder);
  const total = data.length;
  setText(find("#stuck-count"), (more ? "over " : "") + amount(total));
  setText(find("#stuck-brief"), total ? reasonsWords() : incomplete ? "as far as is known" : "nothing needs you");
  find('[href="#stuck"]').dataset.level = total ? "over" : "";
  setText(find(".lead", section), [leadWords(total, incomplete), more && "There are more: earmark stuck lists them all.", incomplete].filter(Boolean).join(" "));
  sync(find(".searches", section), total ? searches.filter((s) => s.url) : [], (s) => s.title, () => make("li", {}, make("a")), (item, s) => {
    item.firstChild.href = s.url;
    setText(item.firstChild, s.title);
  });
  render();
  if (told !== total && (told !== null || total > 0)) tell(`${count(total, "reservation")} stuck.`);
  told = total;
}

function leadWords(total, incomplete) {
  if (total) return `${count(total, "reservation")} ${total === 1 ? "needs" : "need"} somebody to look.`;
  return incomplete ? "The ledger knows of nothing that is stuck." : "Nothing is stuck: every hold is guarded and within its time.";
}

function reasonsWords() {
  const by = new Map();
  for (const { stuck } of latest) by.set(stuck.reason, (by.get(stuck.reason) ?? 0) + 1);
  return [...by].map(([reason, n]) => `${amount(n)} ${title(reason)}`).join(", ");
}

function render() {
  first = startOfPage(first, cardsShown, latest.length);
  const shown = latest.slice(first, first + cardsShown);
  const groups = [...new Set(shown.map((r) => r.stuck.reason))];
  sync(find(".groups", section), groups, (reason) => reason, makeGroup, (node, reason) => {
    const all = latest.filter((r) => r.stuck.reason === reason);
    sync(find(".bulk", node), bulk(reason, all, urlFlag), ([, line]) => line, ([label, line]) => command(label, line), () => {});
    sync(find("ul", node), shown.filter((r) => r.stuck.reason === reason), (r) => r.id, makeCard, updateCard);
  });
  pager(find(".pager", section), first, cardsShown, latest.length, (to) => {
    first = to;
    render();
  });
}

function makeGroup(reason) {
  return make("div", {},
    make("h3", {}, make("span", { class: "badge", text: title(reason) })), make("p", { class: "means", text: meaning(reason) }),
    make("div", { class: "bulk" }), make("ul", { role: "list" }));
}

const facts = {
  "Stuck for": ({ stuck }) => (stuck.since ? span(stuck.age_seconds) : "how long is not known"),
  Made: (r) => ago(r.created_at),
  Metadata: metadataWords,
  Reason: (r) => r.reason,
  Detail: ({ stuck }) => stuck.detail,
  Reservation: (r) => (r.stuck.remedy.includes(r.id) ? "" : r.id),
};

function makeCard(r) {
  const links = make("span", {}, r.lost ? "" : journal(r, "Journal", "Journal:"), " ", link(r, "Open in Temporal UI") ?? "");
  return make("li", {}, make("div", { class: "top" }, make("h4"), links), make("dl"), make("div", { class: "commands" }));
}

function updateCard(card, r) {
  setText(find("h4", card), `${amounts(r.amounts)} on ${scopesWords(r)}${r.lost ? ", lost by Postgres" : ""}`);
  showFacts(find("dl", card), facts, r);
  sync(find(".commands", card), commands(r, urlFlag), ([, line]) => line, ([label, line]) => command(label, line), () => {});
}
