// The stuck reservations: why, since when, and what to do.
import { command, find, make, pager, setText, sync, tell } from "./dom.js";
import { get, list, urlFlag } from "./server.js";
import { link } from "./holds.js";
import { amount, amounts, count, span } from "./words.js";

const cardsShown = 20;

// What each reason means, and the commands that help: what they do, and the line to paste.
const reasons = {
  overdue: {
    title: "overdue",
    means: "Its lease ran out, and it has not been settled. The sweeper settles it within seconds where a worker runs.",
    commands: (r) => [release(r), commit(r)],
  },
  review: {
    title: "in review",
    means: "Its lease ran out, and its policy keeps the amounts set aside until somebody decides what was used.",
    commands: (r) => [commit(r), release(r)],
  },
  orphan: {
    title: "orphan",
    means: "No open workflow guards it. The reconciler gives it a new one within minutes where a worker runs.",
    commands: (r) => [release(r), commit(r)],
  },
};

const release = (r) => ["Nothing was spent: give it back", `earmark release ${r.id}${urlFlag}`];
const commit = (r) => ["It was used: charge it", `earmark commit ${r.id} ${Object.entries(r.amounts).map(([unit, n]) => `${unit}=${n}`).join(" ")}${urlFlag}`];

const section = find("#stuck");
let latest = { data: [], more: false };
let first = 0;

export async function load() {
  const lists = await Promise.all(["state=review", "overdue=true", "orphan=true"].map((query) => list(`v1/reservations?${query}`, 1)));
  const byID = new Map(lists.flatMap((l) => l.data).map((r) => [r.id, r]));
  const reason = (r) => (r.state === "review" ? "review" : r.orphan ? "orphan" : "overdue");
  return { data: [...byID.values()].map((r) => ({ ...r, stuck: { reason: reason(r) } })), more: lists.some((l) => l.more) };
}

export function show(stuck) {
  latest = stuck;
  const total = stuck.data.length;
  setText(find("#stuck-count"), (stuck.more ? "over " : "") + amount(total));
  setText(find("#stuck-brief"), total ? reasonsWords(stuck.data) : "nothing needs you");
  find('[href="#stuck"]').dataset.level = total ? "over" : "";
  setText(find(".lead", section), leadWords(total));
  render();
  announce(total);
}

function render() {
  const total = latest.data.length;
  first = Math.max(0, Math.min(first, Math.floor((total - 1) / cardsShown) * cardsShown));
  sync(find(".stuck", section), latest.data.slice(first, first + cardsShown), (r) => `${r.id} ${r.stuck.reason}`, makeCard, updateCard);
  pager(find(".pager", section), first, cardsShown, total, (to) => {
    first = to;
    render();
  });
}

function leadWords(total) {
  if (total === 0) return "Nothing is stuck: every hold is guarded and within its time.";
  const words = `${count(total, "reservation")} ${total === 1 ? "waits" : "wait"} for somebody.`;
  return latest.more ? `${words} There are more than this page lists.` : words;
}

function reasonsWords(data) {
  const by = Object.groupBy(data, (r) => r.stuck.reason);
  return Object.entries(by).map(([reason, of]) => `${amount(of.length)} ${title(reason)}`).join(", ");
}

const title = (reason) => reasons[reason]?.title ?? reason.replaceAll("_", " ");

let told = null;

// announce tells of a number that has changed, and at first only of trouble.
function announce(total) {
  if (told !== total && (told !== null || total > 0)) tell(`${count(total, "reservation")} stuck.`);
  told = total;
}

function makeCard(r) {
  const { means, commands } = reasons[r.stuck.reason];
  const fact = (name) => make("div", {}, make("dt", { text: name }), make("dd", {}, make("bdi")));
  return make("li", {},
    make("h3", {}, make("span", { class: "badge" , text: title(r.stuck.reason) }), " ", make("span", { class: "what" })),
    make("p", { class: "means", text: means }),
    make("dl", {}, fact("Scope"), fact("Stuck for"), fact("Made"), fact("Metadata"), fact("Said of it")),
    ...commands(r).map(([label, line]) => command(label, line)),
    make("p", { class: "links" }, link(r, r.ui_url ? "Open in Temporal UI" : ""), make("code", { text: r.id })));
}

function updateCard(card, r) {
  setText(find(".what", card), `${amounts(r.amounts)} on ${r.scopes.join(", ")}`);
  const ago = (time) => span((Date.now() - new Date(time)) / 1000);
  const metadata = Object.entries(r.metadata).map(([name, value]) => `${name}: ${value}`).join(", ");
  const facts = [r.scopes.join(", "), ago(r.expires_at), `${ago(r.created_at)} ago`, metadata, r.reason];
  [...find("dl", card).children].forEach((fact, i) => {
    fact.hidden = facts[i] === "";
    setText(find("bdi", fact), facts[i]);
  });
}
