// Runs the TypeScript of the document against the server at EARMARK_URL. The
// arguments are the customer and what the old table says.
import assert from "node:assert/strict";
import { createServer } from "node:http";
import { post } from "./earmark.ts";
import { guard } from "./guard.ts";
import { chatBefore } from "./before.ts";
import { chatAfter } from "./after.ts";
import { compare } from "./shadow.ts";

const [customer, used] = [process.argv[2], Number(process.argv[3])];
const model = async () => ({ reply: "hello", usedTokens: 40 });

// The race: everybody is let in.
let counter = 0;
const db = {
  checkUsageAllowed: async (_, tokens) => counter + tokens <= 300,
  incrementUsage: async (_, tokens) => { counter += tokens; },
};
const slow = async () => { await new Promise((resolve) => setTimeout(resolve, 10)); return model(); };
await Promise.all(Array.from({ length: 20 }, () => chatBefore({ db, model: slow }, customer, "hi")));
assert.equal(counter, 800);

const logged = [];
await compare(customer, true, (words) => logged.push(words));
assert.deepEqual(logged, []);
await compare(customer, false, (words) => logged.push(words));
assert.deepEqual(logged, ["Earmark disagrees"]);
await compare("nobody", true, (words) => logged.push(words));
assert.deepEqual(logged.slice(1), ["Earmark has no answer"]);

assert.equal(await chatAfter({ model }, customer, "ts-1", "hi"), "hello");
const newest = async () => (await (await fetch(`${process.env.EARMARK_URL}/v1/reservations?limit=1`)).json()).data[0];

// A model that fails may have run: nothing is given back.
const failing = async () => { throw new Error("no model"); };
await assert.rejects(chatAfter({ model: failing }, customer, "ts-2", "hi"), /no model/);
const failed = await newest();
assert.equal(failed.state, "held");
assert.equal(failed.on_expiry, "commit");
assert.equal((await post(`/v1/reservations/${failed.id}/commit`, { usage: { tokens: 0 } })).status, 200); // now it is known

// Only one that was certainly not called is.
const unsent = async () => { throw Object.assign(new Error("empty prompt"), { nothingSent: true }); };
await assert.rejects(chatAfter({ model: unsent }, customer, "ts-3", "hi"), /empty prompt/);
assert.equal((await newest()).state, "released");

// The same key twice runs the model once.
let runs = 0;
let begun, finish;
const started = new Promise((resolve) => { begun = resolve; });
const pending = new Promise((resolve) => { finish = resolve; });
const counting = async () => { runs++; begun(); await pending; return { reply: "once", usedTokens: 0 }; };
const first = chatAfter({ model: counting }, customer, "ts-4", "hi");
await started;
await assert.rejects(chatAfter({ model: counting }, customer, "ts-4", "hi"), /running already/);
finish();
assert.equal(await first, "once");
assert.equal(runs, 1);

// Through a proxy that does what proxies do.
const upstream = process.env.EARMARK_URL;
const seen = [];
const script = [];
const proxy = createServer(async (request, response) => {
  let body = "";
  for await (const part of request) body += part;
  seen.push(request.url);
  const step = script.shift();
  if (step === "hang") return; // until the caller gives up
  if (step) {
    response.writeHead(step.status, step.headers);
    response.end(step.body);
    return;
  }
  const answer = await fetch(upstream + request.url, { method: request.method, headers: { "Content-Type": "application/json", ...(request.headers["idempotency-key"] && { "Idempotency-Key": request.headers["idempotency-key"] }) }, body });
  response.writeHead(answer.status, Object.fromEntries(answer.headers));
  response.end(await answer.text());
});
await new Promise((resolve) => { proxy.listen(0, "127.0.0.1", resolve); });
process.env.EARMARK_URL = `http://127.0.0.1:${proxy.address().port}`;

script.push({ status: 502, body: "<html>Bad gateway</html>" }, "hang", { status: 503, headers: { "Retry-After": "1" }, body: "{}" });
const sent = Date.now();
const decided = await post("/v1/decisions", { scopes: [customer], amounts: { tokens: 1 } }, { limitMs: 2_000 });
assert.equal(decided.status, 200);
assert.equal(seen.length, 4);
assert.ok(Date.now() - sent >= 3_000, "a time limit for the attempt that hangs, and the wait that Earmark asks for");

script.push({ status: 404, body: "<html>Not found</html>" });
const strange = await post("/v1/decisions", {});
assert.deepEqual([strange.status, strange.body.detail], [404, "<html>Not found</html>"]);
script.push({ status: 502, body: "<html>Bad gateway</html>" }); // nobody answers a comparison twice
logged.length = 0;
await compare(customer, true, (words) => logged.push(words));
assert.deepEqual(logged, ["Earmark has no answer"]);

// The lease is kept for as long as the work takes.
const extensions = () => seen.filter((path) => path.endsWith("/extend")).length;
const reply = await guard({ scopes: [customer], amounts: { tokens: 10 }, ttl_seconds: 1 }, "ts-5", async () => {
  while (extensions() < 3) await new Promise((resolve) => setTimeout(resolve, 20));
  return { reply: "long", usage: { tokens: 0 } };
});
assert.equal(reply, "long");
process.env.EARMARK_URL = upstream;
const kept = await newest();
assert.deepEqual([kept.state, kept.late], ["committed", false]);
proxy.closeAllConnections();
proxy.close();
const answers = await Promise.allSettled(
  Array.from({ length: 10 }, (_, i) => chatAfter({ model: slow }, customer, `ts-race-${i}`, "hi")),
);
for (const answer of answers) if (answer.status === "rejected") assert.match(answer.reason.message, /over limit/);
const admitted = answers.filter((answer) => answer.status === "fulfilled").length;

const { data } = await (await fetch(`${process.env.EARMARK_URL}/v1/budgets?scope=${customer}`)).json();
assert.equal(data[0].balance.committed, used + 40 * (1 + admitted));
assert.equal(data[0].balance.reserved, 0);
assert.ok(data[0].balance.available >= 0);
