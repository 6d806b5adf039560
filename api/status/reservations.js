// Any reservation, settled ones too: the newest in a list, and one by its id with its journal.
import { columns, fill, find, journal, link, offer, setText, showFacts, sync } from "./dom.js";
import { Fault, get } from "./server.js";
import { ago, amount, amounts, metadataWords, scopesWords, scopeWords, shortID, signed, stamp } from "./words.js";

const rowsShown = 20;
const newest = 500; // where the beginning of an id is looked for
const journalShown = 100;
const leastBeginning = 12;

const section = find("#reservations");
const newRow = columns(find(".reservations", section), "Reservation", "State", "Scope", "Amounts", "Made");
const newEntry = columns(find(".journal", section), "When", "What", "Reserved", "Committed", "Who", "Why");
const view = { sought: find("#sought"), state: find("#state"), cursors: [""], open: "" };
const isID = (text) => /^rsv_[a-z2-7]{52}$/.test(text);

// wanted asks the page to load this part at once.
const wanted = () => section.dispatchEvent(new Event("wanted", { bubbles: true }));

export async function load() {
  const [page, one] = await Promise.all([loadPage(), view.open && loadOne(view.open)]);
  return { page, one, open: view.open };
}

async function loadPage() {
  const sought = view.sought.value.trim();
  if (sought.startsWith("rsv_")) return { data: await byBeginning(sought), next_cursor: "" };
  return get(`v1/reservations?${query({ limit: rowsShown, state: view.state.value, scope: sought, cursor: view.cursors.at(-1) })}`);
}

const query = (values) => new URLSearchParams(Object.entries(values).filter(([, value]) => value !== ""));

async function byBeginning(sought) {
  if (isID(sought)) {
    const r = await get(`v1/reservations/${sought}`, 404);
    return r.id ? [r] : [];
  }
  if (sought.length < leastBeginning) throw new Fault(`Give at least ${leastBeginning} characters of an id.`);
  const { data } = await get(`v1/reservations?limit=${newest}`);
  return data.filter((r) => r.id.startsWith(sought)).slice(0, rowsShown);
}

async function loadOne(id) {
  const [r, entries] = await Promise.all([get(`v1/reservations/${id}`, 404), get(`v1/entries?${query({ reservation_id: id, limit: journalShown })}`)]);
  return r.id ? { r, entries: entries.data, more: entries.next_cursor !== "" } : { missing: true };
}

export function show({ page, one, open }) {
  setText(find(".lead", section), leadWords(page.data.length));
  find(".reservations", section).hidden = page.data.length === 0;
  sync(find(".reservations tbody", section), page.data, (r) => r.id, makeRow, updateRow);
  showPager(page.next_cursor);
  if (open === view.open) showOne(one);
}

function leadWords(found) {
  const sought = view.sought.value.trim();
  if (found) return "Newest first. An id shows its journal.";
  if (isID(sought)) return `There is no reservation ${sought}.`;
  if (sought.startsWith("rsv_")) return `None of the newest ${newest} begins so; the whole id finds any.`;
  return sought || view.state.value ? "None is like that." : "There is none yet.";
}

const used = (r) => (r.usage ? `${amounts(r.usage)} of ${amounts(r.amounts)}` : amounts(r.amounts));

const makeRow = (r) => newRow(journal(r, shortID(r.id), "Show"));
const updateRow = (row, r) => fill(row, 1, stateWords(r), scopesWords(r), used(r), ago(r.created_at));

const stateWords = (r) => [r.state, r.late && "late", r.estimated && "estimated", r.over_limit && "over limit", r.overdue && "overdue", r.orphan && "orphan"].filter(Boolean).join(", ");

function showPager(nextCursor) {
  const [newer, older] = find(".turn", section).children;
  find(".turn", section).hidden = view.cursors.length === 1 && nextCursor === "";
  offer(newer, view.cursors.length > 1, () => turn(view.cursors.slice(0, -1)));
  offer(older, nextCursor, () => turn([...view.cursors, nextCursor]));
}

function turn(cursors) {
  view.cursors = cursors;
  wanted();
}

const facts = {
  Reservation: (r) => r.id,
  Scopes: scopesWords,
  "Set aside": (r) => amounts(r.amounts),
  Charged: (r) => (r.usage ? amounts(r.usage) : ""),
  "Beyond what was reserved": (r) => (r.overage ? amounts(r.overage) : ""),
  "Not charged": (r) => (r.shortfall ? amounts(r.shortfall) : ""),
  Corrected: (r) => (r.correction ? amounts(r.correction) : ""),
  Refused: (r) => (r.rejected_usage ? amounts(r.rejected_usage) : ""),
  Made: (r) => stamp(r.created_at),
  Expires: (r) => (r.expires_at && !r.settled_at ? `${stamp(r.expires_at)}, then ${r.on_expiry}` : ""),
  Settled: (r) => (r.settled_at ? stamp(r.settled_at) : ""),
  Reason: (r) => r.reason,
  Metadata: metadataWords,
  Budgets: (r) => r.budgets.map((b) => `${scopeWords(b.scope)} (${amount(b.reserved)} ${b.unit} reserved, ${amount(b.committed)} committed)`).join("; "),
};

function showOne(one) {
  const box = find("#one");
  box.hidden = !one;
  if (!one) return;
  const { r, entries = [], more } = one;
  setText(find("h3", box), one.missing ? `There is no reservation ${view.open}` : `${r.state[0].toUpperCase()}${r.state.slice(1)}: ${used(r)}`);
  showFacts(find("dl", box), one.missing ? {} : facts, r);
  const to = one.missing ? null : link(r, "Open in Temporal UI");
  find(".ui", box).replaceChildren(...(to ? [to] : []));
  find(".journal", box).hidden = entries.length === 0;
  sync(find(".journal tbody", box), entries, (e) => String(e.id), () => newEntry(), (row, e) =>
    fill(row, 0, stamp(e.created_at), e.kind, delta(e.reserved_delta), delta(e.committed_delta), e.actor, e.reason));
  setText(find(".rest", box), more ? `These are the first ${journalShown} entries; earmark entries --reservation ${r.id} lists all.` : "");
}

const delta = (n) => (Number(n) === 0 ? "" : signed(n));

function openHash() {
  const id = decodeURIComponent(location.hash.slice(1));
  if (!id.startsWith("rsv_")) return;
  view.open = isID(id) ? id : "";
  if (!view.open) return;
  wanted();
  find("#one").hidden = false;
  setText(find("#one h3"), "Loading…");
  find("#one h3").focus();
  section.scrollIntoView();
}

function close() {
  view.open = "";
  showOne(null);
  history.replaceState(null, "", location.pathname + location.search);
  find("#reservations-title").focus();
}

find("form", section).addEventListener("submit", (event) => {
  event.preventDefault();
  view.cursors = [""];
  const sought = view.sought.value.trim();
  if (isID(sought)) location.hash = sought;
  wanted();
});
view.state.addEventListener("input", () => {
  view.cursors = [""];
  wanted();
});
find("#one button").addEventListener("click", close);
addEventListener("hashchange", openHash);
openHash();
