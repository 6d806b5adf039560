// The open reservations by age, and the oldest.
import { columns, fill, find, journal, make, setText, sync } from "./dom.js";
import { get } from "./server.js";
import { amount, amounts, count, scopesWords, shortID, span } from "./words.js";

const section = find("#holds");
const newHold = columns(find(".oldest", section), "Reservation", "Scope", "Set aside", "Age", "Expiry");

export const load = () => get("v1/overview");

export function show(overview) {
  const open = overview.held + overview.review;
  const atLeast = overview.complete ? "" : "at least ";
  setText(find("#holds-count"), atLeast + amount(open));
  setText(find("#holds-brief"), overview.oldest.length ? `the oldest ${age(overview, overview.oldest[0])}` : "nothing is set aside");
  setText(find(".lead", section), open === 0
    ? "Nothing is held."
    : `${atLeast}${amount(overview.held)} held, ${amount(overview.review)} in review, ${amount(overview.overdue)} overdue, ${count(overview.orphan, "orphan")}.`);
  find(".filled", section).hidden = open === 0;
  const most = Math.max(1, ...overview.ages.map((group) => group.reservations));
  sync(find(".ages tbody", section), overview.ages, (group) => String(group.from_seconds), makeAge, (row, group) => updateAge(row, group, most));
  sync(find(".oldest tbody", section), overview.oldest, (r) => r.id, makeHold, (row, r) => updateHold(row, r, overview));
}

const age = (overview, r) => span((new Date(overview.at) - new Date(r.created_at)) / 1000);

function ageWords({ from_seconds: from, to_seconds: to }) {
  if (to === null) return `${span(from)} and more`;
  return from === 0 ? `under ${span(to)}` : `${span(from)} to ${span(to)}`;
}

function makeAge(group) {
  return make("tr", {}, make("th", { scope: "row", text: ageWords(group) }), make("td", { class: "number" }),
    make("td", { class: "chart" }, make("div", { class: "column", "aria-hidden": "true" })), make("td", { class: "amounts" }));
}

function updateAge(row, group, most) {
  setText(row.cells[1], amount(group.reservations));
  find(".column", row).style.width = `${(100 * group.reservations) / most}%`;
  setText(row.cells[3], group.reservations ? amounts(group.amounts) : "");
}

const makeHold = (r) => newHold(journal(r, shortID(r.id), "Show"));
const updateHold = (row, r, overview) => fill(row, 1, scopesWords(r), amounts(r.amounts), age(overview, r), expiryWords(r, overview));

function expiryWords(r, { at }) {
  if (r.state === "review") return "in review";
  const left = (new Date(r.expires_at) - new Date(at)) / 1000;
  return left < 0 ? `overdue since ${span(-left)}` : `in ${span(left)}, then ${r.on_expiry}`;
}
