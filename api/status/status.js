// The status page: asks the server every few seconds, and says how old the answers are. What is old never looks fresh.
import * as budgets from "./budgets.js";
import { find, make, setText, sync, tell } from "./dom.js";
import * as holds from "./holds.js";
import { Fault, get } from "./server.js";
import * as reservations from "./reservations.js";
import * as stuck from "./stuck.js";
import { clock, span } from "./words.js";

const everyMS = 5_000;
const slowestMS = 60_000;
// A server that is slow to answer is asked less often: the page keeps it busy for a tenth of the time at most.
const restFactor = 9;
const oldAfterMS = 15_000;
const lookMS = 1_000; // how often the page looks how old it has become

const services = [["process", "This server"], ["postgres", "Postgres"], ["temporal", "Temporal"], ["worker", "Worker"]];

const health = {
  down: "", // what is, and why
  load: () => get("readyz", 503),
  show({ checks }) {
    const asked = services.filter(([name]) => name in checks);
    sync(find("#health"), asked, ([name]) => name, () => make("li"), (item, [name, title]) => {
      item.dataset.status = checks[name].status;
      setText(item, `${title} ${checks[name].status}`);
    });
    health.down = asked.filter(([name]) => checks[name].status === "down").map(([name, title]) => `${title} is down: ${checks[name].detail}.`).join(" ");
  },
  lost() {
    sync(find("#health"), ["Health unknown"], (text) => text, (text) => make("li", { "data-status": "unknown", text }), () => {});
    health.down = "";
  },
};

// A part of the page: how it is loaded and shown, since when its answer stands, and what went wrong the last time.
const part = (node, { load, show, lost }) => ({ node, load, show, lost, asOf: null, fault: null });
const parts = [
  part(find("#health"), health),
  part(find("#stuck"), stuck),
  part(find("#budgets"), budgets),
  part(find("#holds"), holds),
  part(find("#reservations"), reservations),
];

let paused = false;
let asking = false;
let again = false; // asked for while an answer was awaited
let waitMS = everyMS;
let timer;

async function refreshPart(one) {
  const asked = Date.now(); // the server's answer may be 2 seconds older, because it reuses answers
  try {
    one.show(await one.load());
    one.asOf = asked;
    one.fault = null;
  } catch (fault) {
    if (!(fault instanceof Fault)) console.error(fault); // of this page
    one.fault = fault instanceof Fault ? fault : new Fault(`This page is broken: ${fault.message}.`);
  }
}

async function refresh() {
  clearTimeout(timer);
  again = asking;
  if (asking) return;
  asking = true;
  const started = performance.now();
  await Promise.all(parts.map(refreshPart));
  asking = false;
  waitMS = Math.min(slowestMS, Math.max(everyMS, restFactor * (performance.now() - started)));
  look();
  if (again) refresh();
  else schedule();
}

function schedule() {
  clearTimeout(timer);
  if (!paused && !document.hidden) timer = setTimeout(refresh, waitMS);
}

const ageMS = (one) => Date.now() - one.asOf;
const isOld = (one) => one.asOf !== null && (one.fault !== null || ageMS(one) > Math.max(oldAfterMS, 2 * waitMS));

// look marks what is old. It runs by the clock, so that it also notices a machine that slept.
function look() {
  for (const one of parts) {
    const old = isOld(one) || (one.asOf === null && one.fault !== null);
    one.node.toggleAttribute("data-old", old);
    if (old) one.lost?.();
    const note = find(".old", one.node);
    if (!note) continue;
    note.hidden = !isOld(one);
    if (isOld(one)) setText(note, `Not current: this is from ${clock(one.asOf)}, ${span(ageMS(one) / 1000)} ago.`);
    if (one.asOf === null && one.fault) setText(find(".lead", one.node), `Not loaded. ${one.fault.message}`);
  }
  const loaded = parts.filter((one) => one.asOf !== null).sort((a, b) => a.asOf - b.asOf);
  if (loaded.length) setText(find("#refreshed"), refreshedWords(loaded[0]));
  showTrouble();
}

function refreshedWords(oldest) {
  if (parts.some(isOld)) return `Last refreshed ${clock(oldest.asOf)}, ${span(ageMS(oldest) / 1000)} ago`;
  return `Refreshed ${clock(oldest.asOf)}`;
}

let toldTrouble = "";

function showTrouble() {
  let text = health.down || (parts.find((one) => one.fault)?.fault.message ?? "");
  if (parts.some(isOld)) {
    text ||= paused ? "Refreshing is paused." : "The page has not been refreshed for a while.";
    text += " What you see is old.";
  }
  const box = find("#trouble");
  box.hidden = text === "";
  setText(box, text);
  document.body.toggleAttribute("data-outdated", parts.some(isOld));
  if (text !== toldTrouble) tell(text || "The page is current again.");
  toldTrouble = text;
}

find("#pause").addEventListener("click", ({ target }) => {
  paused = !paused;
  setText(target, paused ? "Resume" : "Pause");
  if (paused) schedule();
  else refresh();
});

document.addEventListener("wanted", refresh);

document.addEventListener("visibilitychange", () => {
  look();
  if (document.hidden || paused) schedule();
  else refresh();
});
addEventListener("pageshow", ({ persisted }) => persisted && !paused && refresh());

for (const node of [find("#main"), find("#health"), find(".refresh")]) node.hidden = false;
setInterval(look, lookMS);
refresh();
