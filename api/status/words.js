// Texts, numbers and times as people read them.

// visibleText replaces what could steer the screen of whoever reads the text, as earmark.VisibleText does.
export const visibleText = (text) => text.replace(/[\p{Cc}\p{Bidi_Control}]/gu, "\ufffd");

const numbers = new Intl.NumberFormat("en-US");

// Amounts are int64. What a number of JavaScript cannot hold becomes a BigInt, where the browser shows the digits.
const exact = (key, value, context) =>
  typeof value === "number" && !Number.isSafeInteger(value) && /^-?\d+$/.test(context?.source) ? BigInt(context.source) : value;

export const parse = (text) => JSON.parse(text, exact);

export const amount = (n) => (typeof n === "number" && !Number.isSafeInteger(n) ? "≈ " : "") + numbers.format(n);

// One of these units is said without the s, as earmark.FormatQuantity does it.
const plurals = /(^|_)(calls|characters|images|messages|minutes|pages|requests|seconds|tokens)$/;

const quantity = (n, unit) => `${amount(n)} ${n === 1 && plurals.test(unit) ? unit.slice(0, -1) : unit}`;

export const amounts = (of) =>
  Object.keys(of).sort().map((unit) => quantity(of[unit], unit)).join(" + ") || "nothing";

export const signed = (n) => (n > 0 ? "+" : "") + amount(n);

export const count = (n, one, many = `${one}s`) => `${amount(n)} ${n === 1 ? one : many}`;

const units = [["d", 86_400], ["h", 3_600], ["min", 60], ["s", 1]];

// span says how long, in the two largest units that matter: "2 h 5 min", "40 s".
export function span(seconds) {
  seconds = Math.max(0, Math.floor(seconds));
  const first = units.findIndex(([, size]) => seconds >= size);
  if (first < 0) return "0 s";
  const [[unit, size], [smaller, part] = []] = units.slice(first);
  const whole = Math.floor(seconds / size);
  const rest = part ? Math.floor((seconds % size) / part) : 0;
  return rest && whole < 10 ? `${whole} ${unit} ${rest} ${smaller}` : `${whole} ${unit}`;
}

export const ago = (time) => `${span((Date.now() - new Date(time)) / 1000)} ago`;

const clocks = new Intl.DateTimeFormat("en-GB", { timeStyle: "medium" });
export const clock = (time) => clocks.format(time);

const stamps = new Intl.DateTimeFormat("en-GB", { dateStyle: "medium", timeStyle: "long", timeZone: "UTC" });

// stamp is a moment to the second, by UTC.
export const stamp = (time) => stamps.format(new Date(time));

// day is in a budget's time zone, with the year if it is another one; a browser without that zone shows UTC.
export function day(time, zone, now = new Date()) {
  const at = new Date(time);
  const format = (timeZone) => {
    const yearOf = (date) => new Intl.DateTimeFormat("en-GB", { year: "numeric", timeZone }).format(date);
    const year = yearOf(at) === yearOf(now) ? {} : { year: "numeric" };
    return new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short", hour: "2-digit", minute: "2-digit", ...year, timeZone }).format(at);
  };
  try {
    return `${format(zone)} ${zone}`;
  } catch {
    return `${format("UTC")} UTC`;
  }
}

// shortID is as much of an id as the command line shows.
export const shortID = (id) => (id.length > 13 ? `${id.slice(0, 12)}…` : id);

// scopeWords is a scope with ids in place of their encoding, as earmark.DisplayScope shows it: "acme/a@b.com".
export const scopeWords = (scope) => scope.split("/").map(segmentWords).join("/");
export const scopesWords = ({ scopes }) => scopes.map(scopeWords).join(", ");
export const metadataWords = ({ metadata }) => Object.entries(metadata).map(([name, value]) => `${name}: ${value}`).join(", ");

function segmentWords(segment) {
  if (!segment.startsWith("x--")) return segment;
  const body = segment.slice(3);
  if (/_(?![0-9A-F]{2})/.test(body)) return segment;
  let id;
  try {
    id = decodeURIComponent(body.replaceAll("_", "%"));
  } catch {
    return segment; // no UTF-8
  }
  const readable = /^[\p{L}\p{M}\p{N}\p{P}\p{S}]+$/u.test(id) && !id.includes("/") && !id.startsWith("x--");
  return readable && encoded(id) === body && /[^A-Za-z0-9_.-]/.test(id) ? id : segment;
}

const encoded = (id) => encodeURIComponent(id).replace(/[_!'()*~]/g, (char) => `%${char.charCodeAt(0).toString(16).toUpperCase()}`).replaceAll("%", "_");
