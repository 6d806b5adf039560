// What one budget was charged in its present window, as a chart and in words. A lifetime budget has its last 30 days.
import { find, make, setText, sync } from "./dom.js";
import { Fault, get } from "./server.js";
import { amount, day, scopeWords } from "./words.js";

const [width, height] = [720, 160];
const hoursUpToMS = 3 * 86_400_000; // a longer window is shown by days

const figure = find("#usage");
let chosen = ""; // a budget's id

export const isChosen = (budget) => budget.id === chosen;

// choose shows the chart of a budget, or hides it again.
export function choose(budget) {
  chosen = isChosen(budget) ? "" : budget.id;
  figure.hidden = true;
  return refresh([budget]);
}

// refresh asks for the chart again, if its budget is still among these.
export async function refresh(budgets) {
  const budget = budgets.find(isChosen);
  if (!budget) return;
  const { window_start: start, window_end: end } = budget.balance;
  const by = end && new Date(end) - new Date(start) <= hoursUpToMS ? "hour" : "day";
  try {
    const report = await get(`v1/budgets/${budget.id}/usage?by=${by}`);
    if (isChosen(budget)) show(budget, report);
  } catch (fault) {
    if (!(fault instanceof Fault)) throw fault;
    if (isChosen(budget)) setText(find("figcaption", figure), `Not loaded. ${fault.message}`);
  }
  figure.hidden = !isChosen(budget);
}

function show(budget, report) {
  const { limit, effective_limit: most, reserved, committed, available } = report.balance;
  const steps = stepsOf(report);
  const thresholds = thresholdsOf(budget);
  setText(find("figcaption", figure), `${scopeWords(budget.scope)}, ${report.unit}: ${amount(committed)} committed, ${amount(reserved)} reserved, ` +
    `${available < 0 ? `${amount(-available)} over the limit` : `${amount(available)} available`}, ` +
    `limit ${amount(most)}${most === limit ? "" : ` with overrides and grants, ${amount(limit)} without`}. ` +
    `The line is what was committed from ${day(report.from, report.timezone)} on; the bar at its end is what is reserved now; the dashed line is the limit` +
    `${thresholds.length ? `, and the dotted ones are thresholds: ${thresholds.map((t) => t.words).join(", ")}` : ""}.`);
  draw(report, steps, thresholds);
  sync(find("tbody", figure), steps, (s) => s.start, () => make("tr", {}, make("th", { scope: "row" }), make("td", { class: "number" }), make("td", { class: "number" })),
    (row, step) => [day(step.start, report.timezone), amount(step.committed), amount(step.level)].forEach((text, i) => setText(row.cells[i], text)));
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
