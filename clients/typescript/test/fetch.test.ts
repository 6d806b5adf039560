import assert from "node:assert/strict";
import crypto from "node:crypto";
import { ReadableStream } from "node:stream/web";
import { after, before, beforeEach, describe, test } from "node:test";

import Anthropic from "@anthropic-ai/sdk";
import { GoogleGenAI } from "@google/genai";
import OpenAI from "openai";

import { denialOf, Earmark, guardedFetch, type GuardedFetchOptions } from "@earmark-dev/client";
import { FakeEarmark, problem } from "./fake.js";
import { FakeProvider } from "./provider.js";

const exact = 18; // what the fake provider bills for a call
const text = "one two three ✓";
const messages = [{ role: "user" as const, content: "Count." }];

let provider: FakeProvider;
let earmark: FakeEarmark;
before(async () => void (provider = await FakeProvider.start()));
after(() => provider.stop());
beforeEach(() => {
  earmark = new FakeEarmark();
  provider.behaviour = {};
  provider.bodies.length = 0;
  provider.next.length = 0;
});

const guarded = (options: Partial<GuardedFetchOptions> = {}) =>
  guardedFetch({ earmark: earmark.client(), scopes: ["acme"], on_expiry: "commit", units: ["tokens"], ...options });
const openai = (options: Partial<GuardedFetchOptions> = {}) => new OpenAI({ apiKey: "k", baseURL: `${provider.url}/v1`, fetch: guarded(options) as any });
const anthropic = () => new Anthropic({ apiKey: "k", baseURL: provider.url, fetch: guarded() as any });
const gemini = () => new GoogleGenAI({ apiKey: "k", httpOptions: { baseUrl: provider.url, fetch: guarded() as any } });
const settlement = () => earmark.calls.slice(1).map(({ verb, body }) => [verb, body.usage?.tokens, body.estimated]);

/** Waits for what happens after the reader has left. */
async function settled(): Promise<void> {
  const deadline = Date.now() + 5_000;
  while (earmark.calls.length < 2 && Date.now() < deadline) await new Promise((resolve) => setTimeout(resolve, 5));
}

describe("guardedFetch commits what the provider says", () => {
  test("openai: chat", async () => {
    const body = { model: "gpt-5", messages, max_completion_tokens: 100, n: 2 };
    const { choices } = await openai().chat.completions.create(body);
    assert.equal(choices[0]?.message.content, text);
    assert.equal(provider.bodies[0], JSON.stringify(body), "the bytes are unchanged");
    const reserved = earmark.calls[0]?.body;
    assert.deepEqual(reserved.amounts, { tokens: JSON.stringify(body).length + 200 });
    assert.deepEqual(reserved.metadata, { api: "openai_chat", model: "gpt-5" });
    assert.deepEqual(settlement(), [["commit", exact, undefined]]);
  });

  test("openai: a chat stream, whose extra chunk stays hidden", async () => {
    const stream = await openai().chat.completions.create({ model: "gpt-5", messages, stream: true });
    let got = "";
    for await (const chunk of stream) {
      assert.ok(chunk.choices.length > 0, "the caller did not ask for the chunk without choices");
      got += chunk.choices[0]?.delta.content ?? "";
    }
    assert.equal(got, text);
    assert.equal(provider.bodies[0], '{"stream_options":{"include_usage":true},"model":"gpt-5","messages":[{"role":"user","content":"Count."}],"stream":true}');
    assert.deepEqual(settlement(), [["commit", exact, undefined]]);
  });

  test("openai: a chat stream with the usage that the caller asked for", async () => {
    const body = { model: "gpt-5", messages, stream: true as const, stream_options: { include_usage: true } };
    const stream = await openai().chat.completions.create(body);
    let usage: unknown;
    for await (const chunk of stream) usage = chunk.usage ?? usage;
    assert.ok(usage);
    assert.equal(provider.bodies[0], JSON.stringify(body));
    assert.deepEqual(settlement(), [["commit", exact, undefined]]);
  });

  test("openai: a chat stream with other options", async () => {
    const stream = await openai().chat.completions.create({ model: "gpt-5", messages, stream: true, stream_options: { include_obfuscation: false } });
    for await (const chunk of stream) assert.ok(chunk.choices.length > 0);
    assert.deepEqual(JSON.parse(provider.bodies[0]!).stream_options, { include_obfuscation: false, include_usage: true });
    assert.deepEqual(settlement(), [["commit", exact, undefined]]);
  });

  test("openai: responses, whole and as a stream", async () => {
    await openai().responses.create({ model: "gpt-5", input: "Count.", max_output_tokens: 50 });
    assert.deepEqual(settlement(), [["commit", exact, undefined]]);
    earmark.calls.length = 0;
    let got = "";
    for await (const event of await openai().responses.create({ model: "gpt-5", input: "Count.", stream: true })) {
      if (event.type === "response.output_text.delta") got += event.delta;
    }
    assert.equal(got, text);
    assert.deepEqual(settlement(), [["commit", exact, undefined]]);
  });

  test("openai: embeddings", async () => {
    await openai().embeddings.create({ model: "text-embedding-3-small", input: "Count.", encoding_format: "float" });
    assert.deepEqual(settlement(), [["commit", 11, undefined]]);
  });

  test("anthropic: messages, whole and as a stream", async () => {
    await anthropic().messages.create({ model: "claude", max_tokens: 50, messages });
    assert.deepEqual(settlement(), [["commit", exact, undefined]], "the cache is part of the input");
    earmark.calls.length = 0;
    const stream = anthropic().messages.stream({ model: "claude", max_tokens: 50, messages });
    assert.equal(await stream.finalText(), text);
    assert.deepEqual(settlement(), [["commit", exact, undefined]]);
  });

  test("gemini: whole and as a stream", async () => {
    const ai = gemini();
    await ai.models.generateContent({ model: "gemini-3", contents: "Count.", config: { maxOutputTokens: 40 } });
    assert.equal(earmark.calls[0]?.body.metadata.model, "gemini-3");
    assert.equal(earmark.calls[0]?.body.amounts.tokens, provider.bodies[0]!.length + 40);
    assert.deepEqual(settlement(), [["commit", exact, undefined]], "thoughts and tools count");
    earmark.calls.length = 0;
    let got = "";
    for await (const chunk of await ai.models.generateContentStream({ model: "gemini-3", contents: "Count." })) got += chunk.text;
    assert.equal(got, text);
    assert.deepEqual(settlement(), [["commit", exact, undefined]]);
  });

  test("in other units", async () => {
    await openai({ units: ["input_tokens", "output_tokens", "requests"], maxOutputTokens: 30, inputTokens: () => 20 }).chat.completions.create({ model: "gpt-5", messages });
    assert.deepEqual(earmark.calls[0]?.body.amounts, { input_tokens: 20, output_tokens: 30, requests: 1 });
    assert.deepEqual(earmark.calls[1]?.body.usage, { input_tokens: 11, output_tokens: 7, requests: 1 });
  });
});

describe("guardedFetch lets Earmark count", () => {
  const units = undefined;
  const committed = () => earmark.calls[1]?.body;

  test("by the model, and by the provider's own usage object", async () => {
    const body = { model: "gpt-5", messages, max_completion_tokens: 100, n: 2, service_tier: "flex" as const };
    await openai({ units, provider: "openai" }).chat.completions.create(body);
    const { amounts, estimate } = earmark.calls[0]?.body;
    assert.equal(amounts, undefined);
    assert.deepEqual(estimate, { model: "gpt-5", provider: "openai", input_tokens: JSON.stringify(body).length, max_output_tokens: 100, n: 2, service_tier: "flex" });
    assert.deepEqual(committed(), { provider_usage: { prompt_tokens: 11, completion_tokens: 7, total_tokens: 18 } });
  });

  test("from what a stream of Anthropic says in two places", async () => {
    const client = new Anthropic({ apiKey: "k", baseURL: provider.url, fetch: guarded({ units }) as any });
    await client.messages.stream({ model: "claude", max_tokens: 50, messages }).finalText();
    assert.deepEqual(committed(), { provider_usage: { input_tokens: 4, cache_read_input_tokens: 5, cache_creation_input_tokens: 2, output_tokens: 7 } });
  });

  test("in the service tier that the answer names beside its usage", async () => {
    const usage = { prompt_tokens: 11, completion_tokens: 7, total_tokens: 18 };
    const call = { method: "POST", body: JSON.stringify({ model: "gpt-5", messages, stream: true }) };
    const stream = [{ service_tier: "priority", choices: [{ index: 0, finish_reason: "stop" }] }, { service_tier: "priority", choices: [], usage }];
    const events = stream.map((event) => `data: ${JSON.stringify(event)}\n\n`).join("");
    for (const answer of [Response.json({ service_tier: "priority", usage }), new Response(events, { headers: { "Content-Type": "text/event-stream" } })]) {
      earmark.calls.length = 0;
      await (await guarded({ units, fetch: async () => answer })("https://api.openai.com/v1/chat/completions", call)).text();
      assert.deepEqual(committed(), { provider_usage: { service_tier: "priority", usage } });
    }
  });

  test("and as an estimate if only one of two answers has ended", async () => {
    const event = { choices: [{ index: 0, finish_reason: "stop" }], usage: { prompt_tokens: 11, completion_tokens: 7, total_tokens: 18 } };
    const answer = new Response(`data: ${JSON.stringify(event)}\n\n`, { headers: { "Content-Type": "text/event-stream" } });
    const call = { method: "POST", body: JSON.stringify({ model: "gpt-5", messages, stream: true, n: 2 }) };
    await (await guarded({ units, fetch: async () => answer })("https://api.openai.com/v1/chat/completions", call)).text();
    assert.equal(committed().estimated, true);
  });

  test("an embedding has no output", async () => {
    await openai({ units }).embeddings.create({ model: "text-embedding-3-small", input: "Count.", encoding_format: "float" });
    assert.equal(earmark.calls[0]?.body.estimate.max_output_tokens, 0);
    assert.deepEqual(committed(), { provider_usage: { prompt_tokens: 11, total_tokens: 11 } });
  });

  test("and a broken stream by its estimate", async () => {
    provider.behaviour = { cutAfter: 2 };
    await assert.rejects(async () => {
      for await (const _ of await openai({ units }).chat.completions.create({ model: "gpt-5", messages, stream: true }));
    });
    const { provider_usage: usage, usage_format, estimated } = committed();
    assert.deepEqual([usage_format, estimated, usage.completion_tokens, usage.total_tokens], ["openai_chat", true, 2, usage.prompt_tokens + 2]);
  });

  test("what Earmark cannot price is reported with the object", async () => {
    earmark.intercept = (verb) => (verb === "commit" ? problem(422, "unpriced_usage") : undefined);
    await openai({ units }).chat.completions.create({ model: "gpt-5", messages });
    assert.match(earmark.unsettled[0]!.message, /the provider's usage was not charged: it is unpriced_usage/);
    assert.deepEqual(earmark.unsettled[0]!.response, { provider_usage: { prompt_tokens: 11, completion_tokens: 7, total_tokens: 18 } });
  });
});

describe("guardedFetch refuses", () => {
  const denied = () => {
    earmark.intercept = () =>
      problem(402, "budget_exceeded", { retryable: true, retry_at: "2126-01-01T00:00:00Z", violations: [{ budget_id: "bud_1", available: 5 }] });
  };
  const isDenial = (error: unknown) => {
    assert.equal((error as { status?: number }).status, 402);
    assert.match((error as Error).message, /it is budget_exceeded/);
    assert.deepEqual(denialOf(error), { violations: [{ budget_id: "bud_1", available: 5 }], retryable: true, retry_at: "2126-01-01T00:00:00.000Z" });
    return true;
  };

  test("openai hears a denial, once", async () => {
    denied();
    await assert.rejects(openai().chat.completions.create({ model: "gpt-5", messages }), isDenial);
    assert.deepEqual(earmark.verbs, ["reserve"]);
    assert.deepEqual(provider.bodies, []);
  });

  test("anthropic hears a denial, once", async () => {
    denied();
    await assert.rejects(anthropic().messages.create({ model: "claude", max_tokens: 5, messages }), isDenial);
    assert.deepEqual(earmark.verbs, ["reserve"]);
  });

  test("gemini hears a denial, once", async () => {
    denied();
    await assert.rejects(gemini().models.generateContent({ model: "gemini-3", contents: "Count." }), isDenial);
    assert.deepEqual(earmark.verbs, ["reserve"]);
  });

  test("a call while Earmark is away, once", async () => {
    earmark.intercept = () => problem(503, "unavailable");
    const fetch = guarded({ earmark: earmark.client({ maxAttempts: 1 }) });
    const client = new OpenAI({ apiKey: "k", baseURL: `${provider.url}/v1`, fetch: fetch as any });
    await assert.rejects(client.chat.completions.create({ model: "gpt-5", messages }), (error: any) => error.status === 503 && /Earmark: it is unavailable/.test(error.message));
    assert.equal(earmark.calls.length, 1, "the SDK does not repeat it");
    assert.deepEqual(provider.bodies, []);
  });

  test("a key beyond its rate, once", async () => {
    earmark.intercept = () => problem(429, "rate_limited");
    const fetch = guarded({ earmark: earmark.client({ maxAttempts: 1 }) });
    const client = new OpenAI({ apiKey: "k", baseURL: `${provider.url}/v1`, fetch: fetch as any });
    await assert.rejects(client.chat.completions.create({ model: "gpt-5", messages }), (error: any) => error.status === 429 && error.code === "rate_limited");
    assert.equal(earmark.calls.length, 1, "the SDK does not repeat it");
    assert.deepEqual(provider.bodies, []);
  });

  test("a scope without a budget", async () => {
    earmark.intercept = () => problem(404, "no_budget");
    await assert.rejects(openai().chat.completions.create({ model: "gpt-5", messages }), (error: any) => error.status === 400 && error.code === "no_budget");
  });

  test("a call that it does not know, unless it may pass", async () => {
    const unknown = () => guarded()(`${provider.url}/v1/images/generations`, { method: "POST", body: "{}" });
    assert.equal((await unknown()).status, 400);
    assert.equal((await guarded()(`${provider.url}/v1/chat/completions`, { method: "POST", body: "no json" })).status, 400);
    assert.deepEqual(provider.bodies, []);
    assert.equal((await guarded({ passUnknown: true })(`${provider.url}/v1/images/generations`, { method: "POST", body: "{}" })).status, 200);
    assert.equal((await guarded()(`${provider.url}/v1/models`)).status, 200);
    assert.equal((await guarded()(`${provider.url}/v1/messages/count_tokens`, { method: "POST", body: "{}" })).status, 200);
    assert.deepEqual(earmark.verbs, []);
  });
});

describe("guardedFetch at an ending", () => {
  const chat = () => openai().chat.completions.create({ model: "gpt-5", messages, stream: true });

  test("a stream that breaks is charged what it sent, as an estimate", async () => {
    provider.behaviour = { cutAfter: 2 };
    await assert.rejects(async () => {
      for await (const _ of await chat());
    });
    const [[verb, tokens, estimated]] = settlement() as [[string, number, boolean]];
    assert.deepEqual([verb, estimated], ["commit", true]);
    assert.equal(tokens, Math.ceil(provider.bodies[0]!.length / 4 - '{"stream_options":{"include_usage":true},'.length / 4) + 2);
  });

  test("anthropic: a stream that breaks is charged the input that the provider counted", async () => {
    provider.behaviour = { cutAfter: 4 };
    await assert.rejects(anthropic().messages.stream({ model: "claude", max_tokens: 50, messages }).finalText());
    assert.deepEqual(settlement(), [["commit", 11 + 2, true]]);
  });

  test("a reader who breaks is charged what was sent, as an estimate", async () => {
    provider.behaviour = { slow: true };
    for await (const _ of await chat()) break;
    await settled();
    assert.deepEqual(settlement().map(([verb, , estimated]) => [verb, estimated]), [["commit", true]]);
  });

  test("a reader who stops without a word is charged the whole answer", async () => {
    provider.behaviour = { slow: true };
    const response = await guarded()(`${provider.url}/v1/chat/completions`, { method: "POST", body: JSON.stringify({ model: "m", messages, stream: true }) });
    await response.body!.getReader().read();
    await settled();
    assert.deepEqual(settlement(), [["commit", exact, undefined]]);
  });

  test("an abort is charged what was sent, as an estimate", async () => {
    provider.behaviour = { slow: true };
    const caller = new AbortController();
    const stream = await openai().chat.completions.create({ model: "gpt-5", messages, stream: true }, { signal: caller.signal });
    const reading = (async () => {
      for await (const _ of stream) caller.abort();
    })();
    await reading.catch(() => {});
    await settled();
    assert.deepEqual(settlement().map(([verb, , estimated]) => [verb, estimated]), [["commit", true]]);
  });

  test("a host that sends no usage is charged an estimate", async () => {
    provider.behaviour = { noUsage: true };
    for await (const _ of await chat());
    assert.deepEqual(settlement().map(([verb, , estimated]) => [verb, estimated]), [["commit", true]]);
  });

  test("an answer without usage is left to the policy", async () => {
    provider.behaviour = { noUsage: true };
    await openai().chat.completions.create({ model: "gpt-5", messages });
    assert.deepEqual(earmark.verbs, ["reserve"]);
    assert.ok(earmark.unsettled[0]?.usageUnknown);
  });

  /** The bytes of a chat stream for which the provider sends `raw`; each character is a byte. */
  const bytesOf = async (raw: string) => {
    provider.behaviour = { raw, bytes: true };
    const response = await guarded()(`${provider.url}/v1/chat/completions`, { method: "POST", body: JSON.stringify({ model: "m", messages, stream: true }) });
    return Buffer.from(await response.arrayBuffer()).toString("latin1");
  };

  test("a malformed stream passes unchanged, and is left to the policy", async () => {
    const raw = "garbage\xff\n\ndata: {broken\n\n: comment"; // no UTF-8
    assert.equal(await bytesOf(raw), raw);
    assert.deepEqual(earmark.verbs, ["reserve"]);
    assert.ok(earmark.unsettled[0]?.usageUnknown);
    assert.deepEqual(earmark.logged, ["reservation not settled"]);
  });

  test("an event that is no UTF-8 passes unchanged, and the usage after it counts", async () => {
    const said = 'data: {"choices":[{"index":0,"delta":{"content":"\xff\xc3"},"finish_reason":"stop"}]}\n\n';
    const done = "data: [DONE]\n\n";
    const usage = 'data: {"choices":[],"usage":{"prompt_tokens":11,"completion_tokens":7}}\n\n';
    assert.equal(await bytesOf(said + usage + done), said + done);
    assert.deepEqual(settlement(), [["commit", exact, undefined]]);
  });

  test("a stream without any event passes before its end", async () => {
    const raw = new Uint8Array((16 << 20) + 8).fill(120);
    const call = { method: "POST", body: JSON.stringify({ model: "m", messages, stream: true }) };
    const endless = new ReadableStream({ start: (controller) => controller.enqueue(raw) });
    const fetch = guarded({ fetch: async () => new Response(endless as any, { headers: { "Content-Type": "text/event-stream" } }) });
    const reader = (await fetch(`${provider.url}/v1/chat/completions`, call)).body!.getReader();
    assert.equal((await reader.read()).value?.length, raw.length);
    await reader.cancel();
    assert.deepEqual(earmark.verbs, ["reserve"]);
  });

  for (const status of [400, 401, 404, 429, 500, 503]) {
    test(`a ${status} bills nothing and is released, so the SDK's next attempt finds room`, async () => {
      provider.behaviour = { status, headers: { "retry-after-ms": "1" } };
      await assert.rejects(openai().chat.completions.create({ model: "gpt-5", messages }), (error: any) => error.status === status);
      const attempts = status === 429 || status >= 500 ? 3 : 1;
      assert.deepEqual(earmark.verbs, Array(attempts).fill(["reserve", "release"]).flat());
    });
  }

  test("behind a time-out the model may have run", async () => {
    provider.behaviour = { status: 504, headers: { "x-should-retry": "false" } };
    await assert.rejects(openai().chat.completions.create({ model: "gpt-5", messages }));
    assert.deepEqual(earmark.verbs, ["reserve"]);
  });

  test("a connection that is never made is released", async () => {
    const closed = await FakeProvider.start();
    const baseURL = `${closed.url}/v1`;
    await closed.stop();
    const client = new OpenAI({ apiKey: "k", baseURL, maxRetries: 0, fetch: guarded() as any });
    await assert.rejects(client.chat.completions.create({ model: "gpt-5", messages }), OpenAI.APIConnectionError);
    assert.deepEqual(earmark.verbs, ["reserve", "release"]);
  });

  test("a connection that breaks before the answer is left to the policy", async () => {
    provider.behaviour = { cutAfter: 0 };
    const client = new OpenAI({ apiKey: "k", baseURL: `${provider.url}/v1`, maxRetries: 0, fetch: guarded() as any });
    await assert.rejects(client.chat.completions.create({ model: "gpt-5", messages }), OpenAI.APIConnectionError);
    assert.deepEqual(earmark.verbs, ["reserve"]);
  });

  test("the answer stands if it cannot be settled", async () => {
    earmark.intercept = (verb) => (verb === "commit" ? problem(409, "overage_rejected") : undefined);
    const { choices } = await openai().chat.completions.create({ model: "gpt-5", messages });
    assert.equal(choices[0]?.message.content, text);
    assert.ok(earmark.unsettled[0]?.refused);
  });
});

// The SDK's own attempts hold once. What an attempt without an answer may have cost is charged with the next one.
describe("guardedFetch over the attempts of one call", () => {
  const clients = {
    openai: (maxRetries: number) => {
      const client = new OpenAI({ apiKey: "k", baseURL: `${provider.url}/v1`, maxRetries, fetch: guarded({ units: ["tokens", "requests"] }) as any });
      return () => client.chat.completions.create({ model: "gpt-5", messages });
    },
    "@anthropic-ai/sdk": (maxRetries: number) => {
      const client = new Anthropic({ apiKey: "k", baseURL: provider.url, maxRetries, fetch: guarded({ units: ["tokens", "requests"] }) as any });
      return () => client.messages.create({ model: "claude", max_tokens: 50, messages });
    },
  };
  const cut = { cutAfter: 0 };
  const failed = { status: 500, headers: { "retry-after-ms": "1" } };
  /** Without the extensions of leases. */
  const seen = () => earmark.calls.filter(({ verb }) => verb !== "extend");
  const verbs = () => seen().map(({ verb }) => verb);

  for (const [name, client] of Object.entries(clients)) {
    test(`${name}: an attempt that the provider refused is released`, async () => {
      provider.next.push(failed);
      await client(1)();
      assert.deepEqual(verbs(), ["reserve", "release", "reserve", "commit"]);
      assert.deepEqual(seen()[3]!.body, { usage: { tokens: exact, requests: 1 } });
    });

    test(`${name}: an attempt without an answer hands its reservation to the next one`, async () => {
      provider.next.push(cut, { status: 504, headers: { "retry-after-ms": "1" } });
      await client(2)();
      assert.deepEqual(verbs(), ["reserve", "commit"]);
      const input = Math.ceil(provider.bodies[0]!.length / 4);
      assert.deepEqual(seen()[1]!.body, { usage: { tokens: exact + 2 * input, requests: 3 }, estimated: true });
    });

    test(`${name}: a refusal after it gives nothing back`, async () => {
      provider.next.push(cut, { status: 400 });
      await assert.rejects(client(1)());
      assert.deepEqual(verbs(), ["reserve"]);
    });

    test(`${name}: the next call reserves for itself`, async () => {
      const call = client(0);
      provider.next.push(cut);
      await assert.rejects(call());
      await call();
      assert.deepEqual(verbs(), ["reserve", "reserve", "commit"]);
      assert.deepEqual(seen()[2]!.body, { usage: { tokens: exact, requests: 1 } });
    });
  }
});

// Streams that are read to the end or left, on a real Earmark: the ledger has what the provider billed, but where it says estimated.
for (const units of [["tokens"], undefined] as GuardedFetchOptions["units"][]) {
  const name = `guardedFetch on a real Earmark, which counts ${units === undefined ? "by itself" : "what the fetch counted"}`;
  test(name, { skip: process.env["EARMARK_TEST_URL"] ? false : "EARMARK_TEST_URL names none" }, async () => {
    const real = new Earmark({ baseUrl: process.env["EARMARK_TEST_URL"]! });
    const scope = `fetch-${crypto.randomUUID()}`;
    const budget = await real.createBudget({ scope, unit: "tokens", limit: 1_000_000 });
    const fetch = guardedFetch({ earmark: real, scopes: [scope], on_expiry: "review", units });
    const client = new OpenAI({ apiKey: "k", baseURL: `${provider.url}/v1`, fetch: fetch as any });
    const calls = 30;
    let broken = 0;
    for (let i = 0; i < calls; i++) {
      const stream = await client.chat.completions.create({ model: "gpt-5", messages, stream: true });
      for await (const _ of stream) {
        if (i % 3 === 2) {
          broken++;
          break;
        }
      }
    }
    let committed = 0;
    let estimated = 0;
    const deadline = Date.now() + 10_000;
    do {
      const { data } = await real.listReservations({ scope, limit: 500 });
      estimated = data.filter((r) => r.state === "committed" && r.estimated).length;
      committed = data.filter((r) => r.state === "committed" && !r.estimated).reduce((sum, r) => sum + (r.usage?.["tokens"] ?? 0), 0);
    } while (estimated < broken && Date.now() < deadline);
    assert.equal(estimated, broken);
    assert.equal(committed, (calls - broken) * exact);
    assert.equal((await real.getBudget(budget.id)).balance.reserved, 0);
  });
}
