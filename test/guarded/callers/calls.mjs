// Makes the calls that it reads, a line each, and writes the number of each one when it has ended. When there are no more, it waits for the charges that are late.
import { createInterface } from "node:readline";

import { Earmark, guardedFetch } from "../../../clients/typescript/dist/esm/index.js";

const quiet = { warn() {}, error() {} };
const earmark = new Earmark({ baseUrl: process.env.EARMARK_URL, logger: quiet });
const guarded = [false, true].map((failOpen) => guardedFetch({ earmark, scopes: ["guarded/calls"], on_expiry: "commit", ttl_seconds: 5, failOpen }));

async function attempt(call, retry) {
  const controller = new AbortController();
  const headers = { "Content-Type": "application/json", "X-Stainless-Retry-Count": String(retry) };
  const response = await guarded[Number(call.fail_open)](call.url, { method: "POST", headers, body: call.body, signal: controller.signal });
  let read = 0;
  for await (const chunk of response.body) {
    read += chunk.length;
    if (call.leave >= 0 && read >= call.leave) break; // cancels the body
  }
  if (call.cancel) controller.abort();
}

async function make(call) {
  for (let retry = 0; retry < call.attempts; retry++) await attempt(call, retry).catch(() => {});
  console.log(call.number);
}

for await (const line of createInterface({ input: process.stdin })) void make(JSON.parse(line));
await earmark.lateCharges.flush();
