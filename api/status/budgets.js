// The budgets, with bars of what is committed, reserved and available; and one of them: what it was charged in its present window (of a
// lifetime, in its last 30 days), as a chart and in words, and what is given to it.
import { columns, command, fill, find, make, pager, setText, startOfPage, sync } from "./dom.js";
import { Fault, get, here, list, quote, urlFlag } from "./server.js";
import { amount, count, day, scopeWords, signed, span } from "./words.js";

const mostPages = 2; // of 500: the newest 1,000 budgets
const rowsShown = 25;
const nearlyFull = 0.9;
const hoursUpToMS = 3 * 86_400_000; // the chart of a longer window is by days
const [width, height] = [720, 160]; // of the chart

const section = find("#budgets");
const figure = find("#usage");
const newRow = columns(find("table", section), "Budget", "Used", "Committed", "Reserved", "Available", "Limit");
const newStep = columns(find(".steps", figure), "From", "Committed", "In all by then");
const newGift = columns(find(".given", figure), "In force", "Amount", "Left", "Until", "Why");
const view = { filter: find("#filter"), level: find("#level"), order: find("#order"), first: 0, chosen: "" };
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
  return refreshChosen();
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
  view.first = startOfPage(view.first, rowsShown, found.length);
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
  const bar = make("div", { class: "bar", "aria-hidden": "true" },
    make("i", { class: "committed" }), make("i", { class: "reserved" }), make("i", { class: "over" }), make("i", { class: "limit" }));
  const row = newRow(make("span", { class: "scope" }), make("span", { class: "about unit" }), make("span", { class: "about end" }),
    make("button", { type: "button", class: "usage-of", text: "Usage" }));
  row.cells[1].className = "use";
  row.cells[1].append(bar, make("span", { class: "share" }), make("span", { class: "badge" }));
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
  button.setAttribute("aria-pressed", isChosen(budget));
  button.onclick = () => {
    view.chosen = isChosen(budget) ? "" : budget.id;
    figure.hidden = true;
    render();
    return refreshChosen();
  };
  setText(find(".share", row), limit > 0 ? `${amount(Math.floor(budget.share * 100))} %` : "nothing to use");
  setText(find(".badge", row), badges[budget.level](available));
  fill(row, 2, ...[committed, reserved, available < 0 ? 0 : available, limit].map(amount));
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

const isChosen = (budget) => budget.id === view.chosen;

// refreshChosen asks for the chart again, if its budget is still there.
async function refreshChosen() {
  const budget = latest.data.find(isChosen);
  if (!budget) return;
  const { window_start: start, window_end: end } = budget.balance;
  const by = end && new Date(end) - new Date(start) <= hoursUpToMS ? "hour" : "day";
  try {
    const path = `v1/budgets/${budget.id}`;
    const [report, grants, overrides] = await Promise.all([get(`${path}/usage?by=${by}`), list(`${path}/grants`, 1), list(`${path}/overrides`, 1)]);
    if (!isChosen(budget)) return;
    showUsage(budget, report);
    showGiven(report, grants, overrides);
  } catch (fault) {
    if (!(fault instanceof Fault)) throw fault;
    if (isChosen(budget)) setText(find("figcaption", figure), `Not loaded. ${fault.message}`);
  }
  figure.hidden = !isChosen(budget);
}

function showUsage(budget, report) {
  const { limit, effective_limit: most, reserved, committed, available } = report.balance;
  const steps = stepsOf(report);
  const thresholds = thresholdsOf(budget);
  setText(find("figcaption", figure), `${scopeWords(budget.scope)}, ${report.unit}: ${amount(committed)} committed, ${amount(reserved)} reserved, ` +
    `${available < 0 ? `${amount(-available)} over the limit` : `${amount(available)} available`}, ` +
    `limit ${amount(most)}${most === limit ? "" : ` with overrides and grants, ${amount(limit)} without`}. ` +
    `The line is what was committed from ${day(report.from, report.timezone)} on; the bar at its end is what is reserved now; the dashed line is the limit` +
    `${thresholds.length ? `, and the dotted ones are thresholds: ${thresholds.map((t) => t.words).join(", ")}` : ""}.`);
  draw(report, steps, thresholds);
  sync(find(".steps tbody", figure), steps, (s) => s.start, () => newStep(),
    (row, step) => fill(row, 0, day(step.start, report.timezone), amount(step.committed), amount(step.level)));
}

const endOf = ({ expires_at: end }) => (end ? Date.parse(end) : Infinity);

// showGiven lists what counts now: overrides, and grants with something left in the order in which they are used.
function showGiven({ timezone }, grants, overrides) {
  const counts = (g) => Date.parse(g.effective_at) <= Date.now() && endOf(g) > Date.now();
  const inForce = [
    ...overrides.data.filter((o) => counts(o) && !o.ended_at),
    ...grants.data.filter((g) => counts(g) && g.remaining > 0).reverse().sort((a, b) => a.priority - b.priority || endOf(a) - endOf(b)),
  ];
  find(".given", figure).hidden = inForce.length === 0;
  sync(find(".given tbody", figure), inForce, (g) => g.id, () => newGift(), (row, g) => fill(row, 0, `${g.remaining ? "grant" : "override"}, ${g.source}`,
    signed(g.amount), g.remaining ? amount(g.remaining) : "", g.expires_at ? day(g.expires_at, timezone) : "no end", g.reason));
  setText(find(".rest", figure), grants.more || overrides.more ? "These are of the newest 500; earmark grant list and earmark override list show all." : "");
}

// stepsOf adds to each part how much was committed up to its end. What was committed before the report is where it begins.
function stepsOf(report) {
  let level = BigInt(report.balance.committed) - BigInt(report.total.committed);
  return report.data.map((part) => {
    level += BigInt(part.committed);
    return { ...part, level };
  });
}

// thresholdsOf says for each threshold which amount it is. As in the ledger, a part of the limit is rounded up.
function thresholdsOf({ limit, thresholds = [] }) {
  return thresholds.map(({ percent, amount: n, of }) => {
    const at = percent ? (BigInt(limit) * BigInt(percent) + 99n) / 100n || 1n : BigInt(n);
    return { at, words: `${amount(at)} ${of}${percent ? ` (${percent} %)` : ""}` };
  });
}

function draw({ from, to, balance, total }, steps, thresholds) {
  const [first, last] = [new Date(from).getTime(), new Date(to).getTime()];
  const now = Math.min(last, Math.max(first, Date.now()));
  const used = Number(balance.committed) + Number(balance.reserved);
  const most = Math.max(Number(balance.effective_limit), used, ...steps.map((s) => Number(s.level)), 1) * 1.05;
  const x = (at) => (width * (at - first)) / (last - first || 1);
  const y = (n) => height - (height * Number(n)) / most;
  let line = `M0,${y(BigInt(balance.committed) - BigInt(total.committed))}`;
  for (const { end, level } of steps) line += ` L${x(Math.min(new Date(end).getTime(), now))},${y(level)}`;
  line += ` H${x(now)}`;
  const shape = (selector, attributes) => {
    for (const [name, value] of Object.entries(attributes)) find(selector, figure).setAttribute(name, value);
  };
  shape(".settled", { d: `${line} V${height} H0 Z` });
  shape(".held", { x: Math.min(x(now), width - 6), y: y(used), width: 6, height: y(balance.committed) - y(used) });
  shape(".most", { y1: y(balance.effective_limit), y2: y(balance.effective_limit) });
  shape(".thresholds", { d: thresholds.filter((t) => Number(t.at) <= most).map((t) => `M0,${y(t.at)} H${width}`).join(" ") });
}
