// The budgets, with bars of what is committed, reserved and available.
import { command, find, make, pager, setText, sync } from "./dom.js";
import { here, list, quote, urlFlag } from "./server.js";
import * as usage from "./usage.js";
import { amount, count, day, scopeWords, span } from "./words.js";

const mostPages = 2; // of 500: the newest 1,000 budgets
const rowsShown = 25;
const nearlyFull = 0.9;

const section = find("#budgets");
const view = { filter: find("#filter"), level: find("#level"), order: find("#order"), first: 0 };
let latest = { data: [], more: false };

export const load = () => list("v1/budgets", mostPages);

export function show(budgets) {
  latest = { more: budgets.more, data: budgets.data.filter((b) => !b.template).map(judge) };
  const over = latest.data.filter((b) => b.level === "over").length;
  setText(find("#budgets-count"), (latest.more ? "over " : "") + amount(latest.data.length));
  setText(find("#budgets-brief"), over ? `${amount(over)} over the limit` : "none over the limit");
  const empty = budgets.data.length === 0;
  find(".filled", section).hidden = empty;
  find(".first", section).hidden = !empty;
  if (empty) showFirst();
  else render();
  const templates = budgets.data.filter((b) => b.template).map((b) => `each ${scopeWords(b.scope)}: ${amount(b.limit)} ${unitWords(b)}`);
  setText(find("#templates"), templates.join("; "));
  return usage.refresh(latest.data);
}

// judge adds how full a budget is: over its limit too, after a cut or late usage.
function judge(budget) {
  const { effective_limit: limit, reserved, committed, available } = budget.balance;
  const used = Number(reserved) + Number(committed);
  const share = limit > 0 ? used / Number(limit) : 1;
  let level = "";
  if (available < 0) level = "over";
  else if (available <= 0) level = "full";
  else if (share >= nearlyFull) level = "near";
  return { ...budget, used, share, level };
}

const levels = {
  "": () => true,
  near: (budget) => budget.level !== "",
  over: (budget) => budget.level === "over",
};

const { compare } = new Intl.Collator("en", { numeric: true });
const byScope = (a, b) => compare(a.scope, b.scope) || compare(a.unit, b.unit) || compare(a.window.period, b.window.period);
const orders = { scope: byScope, share: (a, b) => b.share - a.share || byScope(a, b) };

function render() {
  const wanted = view.filter.value.trim().toLowerCase();
  const found = latest.data
    .filter((b) => levels[view.level.value](b) && ([b.scope, scopeWords(b.scope)].some((scope) => scope.toLowerCase().includes(wanted)) || b.unit.includes(wanted)))
    .sort(orders[view.order.value]);
  view.first = Math.max(0, Math.min(view.first, Math.floor((found.length - 1) / rowsShown) * rowsShown));
  setText(find(".lead", section), leadWords(found.length));
  sync(find("tbody", section), found.slice(view.first, view.first + rowsShown), (b) => b.id, makeRow, updateRow);
  find("table", section).hidden = found.length === 0;
  pager(find(".pager", section), view.first, rowsShown, found.length, turnTo);
}

function leadWords(found) {
  const all = latest.data.length;
  const words = found === all ? `${count(all, "budget")}.` : `${amount(found)} of ${count(all, "budget")}.`;
  return latest.more ? `${words} These are the newest; earmark budget list --covering SCOPE finds any other.` : words;
}

function turnTo(first) {
  view.first = first;
  render();
}

for (const input of [view.filter, view.level, view.order]) input.addEventListener("input", () => turnTo(0));
find("form", section).addEventListener("submit", (event) => event.preventDefault());

function makeRow() {
  const cell = (name, label) => make("td", { role: "cell", class: name, "data-label": label });
  const bar = make("div", { class: "bar", "aria-hidden": "true" },
    make("i", { class: "committed" }), make("i", { class: "reserved" }), make("i", { class: "over" }), make("i", { class: "limit" }));
  const row = make("tr", { role: "row" },
    make("th", { role: "rowheader", scope: "row" }, make("span", { class: "scope" }), make("span", { class: "about unit" }), make("span", { class: "about end" }),
      make("button", { type: "button", class: "usage-of", text: "Usage" })),
    make("td", { role: "cell", class: "use", "data-label": "Used" }, bar, make("span", { class: "share" }), make("span", { class: "badge" })));
  for (const name of ["Committed", "Reserved", "Available", "Limit"]) row.append(cell("number", name));
  return row;
}

const badges = {
  over: (available) => `${amount(-available)} over the limit`,
  full: () => "full",
  near: () => "nearly full",
  "": () => "",
};

function updateRow(row, budget) {
  const { effective_limit: limit, reserved, committed, available } = budget.balance;
  row.dataset.level = budget.level;
  setText(find(".scope", row), scopeWords(budget.scope));
  setText(find(".unit", row), unitWords(budget));
  setText(find(".end", row), endWords(budget));
  const button = find(".usage-of", row);
  button.setAttribute("aria-label", `Usage of ${scopeWords(budget.scope)}, ${unitWords(budget)}`);
  button.setAttribute("aria-pressed", usage.isChosen(budget));
  button.onclick = () => {
    const chosen = usage.choose(budget);
    render();
    return chosen;
  };
  setText(find(".share", row), limit > 0 ? `${amount(Math.floor(budget.share * 100))} %` : "nothing to use");
  setText(find(".badge", row), badges[budget.level](available));
  [committed, reserved, available < 0 ? 0 : available, limit].forEach((n, i) => setText(row.cells[i + 2], amount(n)));
  drawBar(find(".bar", row), budget);
}

function unitWords({ unit, window, enforcement, soft_ceiling: ceiling, limit, balance, rollover }) {
  let each = window.period === "rolling" ? `${unit} in any ${rollingWords(window)}` : window.period === "lifetime" ? `${unit} in all` : `${unit} each ${length(window)}`;
  if (balance.effective_limit !== limit) each += `, ${amount(limit)} its own`;
  if (rollover) each += `, ${amount(rollover.max)} roll over`;
  if (enforcement !== "soft") return each;
  return ceiling === null ? `${each}, soft` : `${each}, soft up to ${amount(ceiling)}`;
}

// length is that of a window in words: month, 2 weeks.
const length = ({ period, every = 1 }) => every > 1 ? `${every} ${period}s` : period;

function rollingWords({ rolling_seconds: seconds }) {
  const [hours, minutes] = [Math.floor(seconds / 3600), seconds % 3600 / 60];
  return [hours && `${hours} h`, minutes && `${minutes} min`].filter(Boolean).join(" ");
}

function endWords({ window, balance: { window_end: end } }) {
  if (window.period === "lifetime" || window.period === "rolling") return "";
  return `ends in ${span((new Date(end) - Date.now()) / 1000)}, ${day(end, window.timezone)}`;
}

// drawBar is as long as the limit or what is used, whichever is more; a limit within it is a mark.
function drawBar(bar, { used, balance }) {
  const limit = Number(balance.effective_limit);
  const whole = Math.max(limit, used, 1);
  const percent = (n) => `${(100 * Number(n)) / whole}%`;
  find(".committed", bar).style.width = percent(balance.committed);
  find(".reserved", bar).style.width = percent(balance.reserved);
  find(".over", bar).style.width = percent(Math.max(0, used - limit));
  find(".limit", bar).hidden = used <= limit;
  find(".limit", bar).style.left = percent(limit);
}

function showFirst() {
  setText(find(".lead", section), "There is no budget yet, and without one nothing is admitted.");
  const first = find(".first", section);
  if (first.firstChild) return;
  const body = JSON.stringify({ scope: "acme", unit: "tokens", limit: 1000 });
  first.append(
    command("Create a budget of 1,000 tokens on acme", `curl -s ${quote(`${here}/v1/budgets`)} -H 'Content-Type: application/json' -d '${body}'`),
    command("The same from the command line", `earmark budget create acme tokens 1,000${urlFlag}`));
}
