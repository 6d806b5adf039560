import assert from "node:assert/strict";
import { once } from "node:events";
import { readdirSync, readFileSync } from "node:fs";
import type { AddressInfo } from "node:net";
import { test } from "node:test";

import { chat } from "../examples/guard.js";
import { stream } from "../examples/stream.js";
import { received } from "../examples/webhook.js";
import { FakeEarmark, problem } from "./fake.js";
import { FakeProvider } from "./provider.js";

const root = new URL("../../", import.meta.url);

// The examples make their client with the global fetch.
async function with_<T>(fake: FakeEarmark, run: () => Promise<T>): Promise<T> {
  const original = globalThis.fetch;
  globalThis.fetch = fake.fetch;
  try {
    return await run();
  } finally {
    globalThis.fetch = original;
  }
}

test("the examples guard a model", async () => {
  const model = async () => ({ text: "hello", usedTokens: 40 });
  const fake = new FakeEarmark();
  assert.equal(await with_(fake, () => chat("a@b.com", "hi", model)), "hello");
  assert.deepEqual(fake.calls.map(({ verb, body }) => [verb, body.scopes ?? body.usage]), [["reserve", ["acme/ml/x--a_40b.com"]], ["commit", { tokens: 40 }]]);

  const denying = new FakeEarmark();
  denying.intercept = () => problem(402, "budget_exceeded");
  assert.equal(await with_(denying, () => chat("u1", "hi", model)), "Your budget is used up.");
});

test("the examples guard a stream", async () => {
  const fake = new FakeEarmark();
  const model = async function* () {
    yield { text: "a" };
    yield { text: "b", usedTokens: 77 };
  };
  await with_(fake, async () => {
    let text = "";
    for await (const chunk of stream("hi", model)) text += chunk;
    assert.equal(text, "ab");
    for await (const _ of stream("hi", model)) break;
  });
  assert.deepEqual(fake.calls.filter(({ verb }) => verb === "commit").map(({ body }) => body.usage.tokens), [77, 3]);
});

test("the examples guard the SDKs", async () => {
  const provider = await FakeProvider.start();
  process.env["OPENAI_API_KEY"] = "k";
  process.env["OPENAI_BASE_URL"] = `${provider.url}/v1`;
  const original = globalThis.fetch;
  const fake = new FakeEarmark();
  globalThis.fetch = ((input, init) => (String(input).startsWith(provider.url) ? original(input, init) : fake.fetch(input, init))) as typeof fetch;
  try {
    const { answer } = await import("../examples/openai.js");
    assert.equal(await answer("Count."), "one two three ✓");
    assert.deepEqual(fake.calls.map(({ verb, body }) => [verb, body.scopes ?? body.provider_usage.total_tokens]), [["reserve", ["acme/ml"]], ["commit", 18]]);
    fake.intercept = () => problem(402, "budget_exceeded", { violations: [] });
    assert.equal(await answer("Count."), "Your budget is used up.");

    fake.intercept = () => undefined;
    fake.calls.length = 0;
    const { summary } = await import("../examples/ai.js");
    assert.equal(await summary("Count."), "one two three ✓");
    assert.deepEqual(fake.calls.map(({ verb, body }) => [verb, body.scopes ?? body.provider_usage.raw.total_tokens]), [["reserve", ["acme/ml"]], ["commit", 18]]);
    fake.intercept = () => problem(402, "budget_exceeded", { violations: [] });
    assert.equal(await summary("Count."), "Your budget is used up.");

    const { app } = await import("../examples/express.js");
    const server = app.listen(0, "127.0.0.1");
    await once(server, "listening");
    try {
      const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/users/a@b.com/chat`;
      const post = (init: RequestInit = {}) => original(url, { method: "POST", headers: { "Content-Type": "application/json" }, body: '{"prompt":"Count."}', ...init });
      const denied = await post();
      assert.deepEqual([denied.status, await denied.json()], [402, { error: "Your budget is used up." }]);

      fake.intercept = () => undefined;
      fake.calls.length = 0;
      assert.equal(await (await post()).text(), "one two three ✓");
      assert.deepEqual(fake.calls.map(({ verb, body }) => [verb, body.scopes ?? body.provider_usage.total_tokens]), [["reserve", ["acme/x--a_40b.com"]], ["commit", 18]]);

      fake.calls.length = 0;
      provider.behaviour = { hangAfter: 2 };
      const reader = (await post()).body!.getReader();
      await reader.read();
      await reader.cancel();
      while (fake.calls.length < 2) await new Promise((resolve) => setTimeout(resolve, 5));
      assert.deepEqual([fake.calls[1]!.verb, fake.calls[1]!.body.estimated], ["commit", true]);
    } finally {
      server.closeAllConnections();
      server.close();
    }

    provider.behaviour = {};
    fake.calls.length = 0;
    const { POST } = await import("../examples/next.js");
    const caller = new AbortController();
    const ask = () => POST(new Request("http://app.test/users/a@b.com/chat", { method: "POST", body: '{"prompt":"Count."}', signal: caller.signal }), { params: Promise.resolve({ user: "a@b.com" }) });
    assert.equal(await (await ask()).text(), "one two three ✓");
    assert.deepEqual(fake.calls.map(({ verb, body }) => [verb, body.scopes ?? body.provider_usage.total_tokens]), [["reserve", ["acme/x--a_40b.com"]], ["commit", 18]]);

    fake.intercept = () => problem(402, "budget_exceeded", { violations: [] });
    const denied = await ask();
    assert.deepEqual([denied.status, await denied.json()], [402, { error: "Your budget is used up." }]);

    fake.intercept = () => undefined;
    fake.calls.length = 0;
    provider.behaviour = { hangAfter: 2 };
    const reader = (await ask()).body!.getReader();
    await reader.read();
    caller.abort(); // as Next.js does when the browser leaves
    await reader.read().catch(() => {});
    while (fake.calls.length < 2) await new Promise((resolve) => setTimeout(resolve, 5));
    assert.deepEqual([fake.calls[1]!.verb, fake.calls[1]!.body.estimated], ["commit", true]);
  } finally {
    globalThis.fetch = original;
    await provider.stop();
  }
});

test("a delivery passes the check of Standard Webhooks", (t) => {
  const { secret, headers, body } = JSON.parse(readFileSync(new URL("../../internal/webhook/testdata/delivery.json", root), "utf8"));
  t.mock.method(Date, "now", () => Number(headers["webhook-timestamp"]) * 1000);
  const event = received(body, headers, secret);
  assert.deepEqual([event.id, event.type], [headers["webhook-id"], "budget.exhausted"]);
  assert.throws(() => received(`${body} `, headers, secret), /signature/i);
});

test("the examples are short", () => {
  for (const name of readdirSync(new URL("examples/", root))) {
    const lines = readFileSync(new URL(`examples/${name}`, root), "utf8").split("\n").length - 1;
    assert.ok(lines < 40, `${name} has ${lines} lines`);
  }
});

test("the pages show the examples", () => {
  const files = readdirSync(new URL("examples/", root)).map((name) => readFileSync(new URL(`examples/${name}`, root), "utf8"));
  for (const page of ["README.md", "../../README.md", "../../docs/typescript.md", "../../docs/integrations.md", "../../docs/events.md"]) {
    const blocks = [...readFileSync(new URL(page, root), "utf8").matchAll(/\n```ts\n(.*?\n)```\n/gs)].map(([, code]) => code!);
    assert.ok(blocks.length > 0);
    for (const block of blocks) assert.ok(files.some((file) => file.includes(block)), `${page} has code that is in no example:\n${block}`);
  }
});
