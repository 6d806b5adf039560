// Asking the server.
import { parse } from "./words.js";

const timeoutMS = 10_000;
const pageSize = 500; // the API's largest

// here is the server's address, as commands name it. The command line knows the local one by itself.
export const here = new URL(".", document.baseURI).href.replace(/\/$/, "");
const localServer = "http://127.0.0.1:8080";
export const urlFlag = here === localServer ? "" : ` --url ${quote(here)}`;

// quote keeps a text one word in a shell.
export function quote(text) {
  return /^[\w.:/@%+=-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`;
}

// Fault is an answer that is none, or not the one that was asked for. Its message is a sentence; status is that of a problem.
export class Fault extends Error {
  constructor(message, status) {
    super(message);
    this.status = status;
  }
}

// get answers with what the server says. alsoFine is a status, other than those of success, whose body is wanted.
export async function get(path, alsoFine) {
  let response, text;
  try {
    response = await fetch(path, { cache: "no-store", signal: AbortSignal.timeout(timeoutMS) });
    text = await response.text();
  } catch (fault) {
    throw new Fault(fault.name === "TimeoutError" ? `The server gave no answer within ${timeoutMS / 1000} s.` : "The server does not answer.");
  }
  if (response.status === 401) location.assign("sign-in");
  let body;
  try {
    body = parse(text);
  } catch { // a proxy's page, most likely
    throw new Fault(`What answers with status ${response.status} is not Earmark.`);
  }
  if (!response.ok && response.status !== alsoFine) throw new Fault(`The server says: ${body.detail ?? `status ${response.status}`}.`, response.status);
  return body;
}

// list reads up to pages pages of a list. more says that there are further ones; what else the first page says is kept.
export async function list(path, pages) {
  const query = (cursor) => `${path}${path.includes("?") ? "&" : "?"}${new URLSearchParams({ limit: pageSize, cursor })}`;
  const whole = await get(query(""));
  while (whole.next_cursor && --pages > 0) {
    const page = await get(query(whole.next_cursor));
    whole.data.push(...page.data);
    whole.next_cursor = page.next_cursor;
  }
  return { ...whole, more: whole.next_cursor !== "" };
}
