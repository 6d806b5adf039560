// Runs the TypeScript of the document against the server at EARMARK_URL. The
// arguments are the customer and what the old table says.
import assert from "node:assert/strict";
import { Earmark, NothingSentError } from "@earmark-dev/client";
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
const earmark = new Earmark();
const newest = async () => (await earmark.listReservations({ limit: 1 })).data[0];

// A model that fails may have run: nothing is given back.
const failing = async () => { throw new Error("no model"); };
await assert.rejects(chatAfter({ model: failing }, customer, "ts-2", "hi"), /no model/);
const failed = await newest();
assert.equal(failed.state, "held");
assert.equal(failed.on_expiry, "commit");
await earmark.commitReservation(failed.id, { usage: { tokens: 0 } }); // now it is known

// Only one that was certainly not called is.
const unsent = async () => { throw new NothingSentError("empty prompt"); };
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
await assert.rejects(chatAfter({ model: counting }, customer, "ts-4", "hi"), /another run with this key/);
finish();
assert.equal(await first, "once");
assert.equal(runs, 1);

const answers = await Promise.allSettled(
  Array.from({ length: 10 }, (_, i) => chatAfter({ model: slow }, customer, `ts-race-${i}`, "hi")),
);
for (const answer of answers) if (answer.status === "rejected") assert.match(answer.reason.message, /over limit/);
const admitted = answers.filter((answer) => answer.status === "fulfilled").length;

const { data } = await earmark.listBudgets({ scope: customer });
assert.equal(data[0].balance.committed, used + 40 * (1 + admitted));
assert.equal(data[0].balance.reserved, 0);
assert.ok(data[0].balance.available >= 0);
