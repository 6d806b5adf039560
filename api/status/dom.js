// Building the page. Scopes, reasons and metadata come from callers, so every text goes in as text, and passes
// through visibleText; nothing here takes HTML. What is on the page already is changed in place, so that focus, selection and scrolling survive a refresh.

import { visibleText } from "./words.js";

export const find = (selector, within = document) => within.querySelector(selector);

export function make(tag, properties = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name === "text") node.textContent = visibleText(value);
    else node.setAttribute(name, visibleText(value));
  }
  node.append(...children);
  return node;
}

export function setText(node, text) {
  const shown = visibleText(text);
  if (node.textContent !== shown) node.textContent = shown;
}

// sync makes the children of parent those of items, in their order. create is called once for a key.
export function sync(parent, items, key, create, update) {
  const known = new Map([...parent.children].map((node) => [node.dataset.key, node]));
  const nodes = items.map((item) => {
    const node = known.get(key(item)) ?? create(item);
    node.dataset.key = key(item);
    known.delete(key(item));
    update(node, item);
    return node;
  });
  for (const node of known.values()) node.remove();
  nodes.forEach((node, i) => {
    if (parent.children[i] !== node) parent.insertBefore(node, parent.children[i] ?? null);
  });
}

const numeric = ["Committed", "Reserved", "Available", "Limit", "In all by then", "Amount", "Left"];
const kind = (name) => (numeric.includes(name) ? "number" : "");

// columns gives a table its headings, and returns what makes a row, whose heading holds the nodes. On a narrow page rows become
// cards; the roles keep them a table for those who listen.
export function columns(table, ...names) {
  const row = (...cells) => make("tr", { role: "row" }, ...cells);
  table.append(
    make("thead", { role: "rowgroup" }, row(...names.map((text) => make("th", { role: "columnheader", class: kind(text), text })))),
    make("tbody", { role: "rowgroup" }));
  return (...nodes) => row(make("th", { role: "rowheader" }, ...nodes),
    ...names.slice(1).map((name) => make("td", { role: "cell", class: kind(name), "data-label": name })));
}

// fill sets the texts of a row's cells, from the one at first on.
export const fill = (row, first, ...texts) => texts.forEach((text, i) => setText(row.cells[first + i], text));

// showFacts lists what there is to say of an item: facts has a function for each name.
export function showFacts(list, facts, item) {
  sync(list, Object.entries(facts).filter(([, say]) => say(item)), ([name]) => name,
    ([name]) => make("div", {}, make("dt", { text: name }), make("dd", {}, make("bdi"))), (fact, [, say]) => setText(find("bdi", fact), say(item)));
}

// startOfPage is where the page of size items begins that holds the one at first, or the last page.
export const startOfPage = (first, size, total) => Math.max(0, Math.min(first, Math.floor((total - 1) / size) * size));

// pager shows which part of total is on the page, and moves by pages of size. turn is given the new first item.
export function pager(node, first, size, total, turn) {
  if (!node.firstChild) {
    const button = (text) => make("button", { type: "button", text });
    node.append(button("Previous"), make("span"), button("Next"));
  }
  const [previous, range, next] = node.children;
  node.hidden = total <= size;
  setText(range, `${first + 1} to ${Math.min(first + size, total)} of ${total}`);
  offer(previous, first > 0, () => turn(first - size));
  offer(next, first + size < total, () => turn(first + size));
}

// offer lets a button act, or not. A button that is disabled loses the focus; one that says so keeps it.
export function offer(button, possible, act) {
  button.setAttribute("aria-disabled", !possible);
  button.onclick = possible ? act : null;
}

// link leads to a reservation's workflow in Temporal UI; where that is not known, it is null.
export const link = (r, text) => (/^https?:/.test(r.ui_url) ? make("a", { href: r.ui_url, text, "aria-label": `${text}: ${r.id}` }) : null);

const news = find("#news");

// journal leads to a reservation's journal on this page.
export const journal = (r, text, says) => make("a", { href: `#${r.id}`, text, "aria-label": `${says} ${r.id}` });

// tell announces a change to screen readers.
export const tell = (text) => setText(news, text);

// command is a line for the terminal with a button that copies it. label says what it does.
export function command(label, text) {
  const code = make("code", { text });
  const button = make("button", { type: "button", text: "Copy", "aria-label": `Copy: ${label}` });
  button.addEventListener("click", () => copy(code, button));
  return make("div", { class: "command" }, make("span", { class: "label", text: label }), make("div", { class: "line" }, code, button));
}

async function copy(code, button) {
  try {
    await navigator.clipboard.writeText(code.textContent);
    done(button, "Copied");
  } catch { // a page that is not on loopback and not on HTTPS has no clipboard
    getSelection().selectAllChildren(code);
    done(button, "Selected, press Ctrl+C");
  }
}

const backMS = 3_000;

function done(button, text) {
  setText(button, text);
  tell(text);
  clearTimeout(button.back);
  button.back = setTimeout(() => {
    setText(button, "Copy");
    tell("");
  }, backMS);
}
