import assert from "node:assert/strict";
import crypto from "node:crypto";
import { after, before, beforeEach, describe, test } from "node:test";

import Anthropic from "@anthropic-ai/sdk";
import { GoogleGenAI } from "@google/genai";
import OpenAI, { AzureOpenAI } from "openai";

import { Earmark, EarmarkError, wrap, type LostCharge, type WrapOptions } from "@earmark-dev/client";
import { FakeEarmark, problem } from "./fake.js";
import { FakeProvider } from "./provider.js";

const exact = 18; // what the fake provider bills for a call
const messages = [{ role: "user" as const, content: "Count." }];

let provider: FakeProvider;
let earmark: FakeEarmark;
before(async () => void (provider = await FakeProvider.start()));
after(() => provider.stop());
beforeEach(() => {
  earmark = new FakeEarmark();
  provider.behaviour = {};
  provider.bodies.length = 0;
});

const options = (more: Partial<WrapOptions> = {}): WrapOptions => ({ earmark: earmark.client({ maxAttempts: 1 }), scopes: ["acme"], on_expiry: "commit", units: ["tokens"], ...more });
const newOpenAI = () => new OpenAI({ apiKey: "k", baseURL: `${provider.url}/v1` });
const openai = (more: Partial<WrapOptions> = {}) => wrap(newOpenAI(), options(more));
const newGoogle = () => new GoogleGenAI({ apiKey: "k", httpOptions: { baseUrl: provider.url } });
const chat = (client: OpenAI) => client.chat.completions.create({ model: "gpt-5", messages });
const settlement = () => earmark.calls.slice(1).map(({ verb, body }) => [verb, body.usage?.tokens]);

describe("wrap guards", () => {
  test("openai", async () => {
    await chat(openai());
    assert.deepEqual(settlement(), [["commit", exact]]);
  });

  test("openai of Azure", async () => {
    const client = new AzureOpenAI({ apiKey: "k", baseURL: `${provider.url}/openai`, apiVersion: "2026-01-01" });
    await wrap(client, options()).chat.completions.create({ model: "gpt-5", messages });
    assert.deepEqual(settlement(), [["commit", exact]]);
  });

  test("@anthropic-ai/sdk", async () => {
    await wrap(new Anthropic({ apiKey: "k", baseURL: provider.url }), options()).messages.stream({ model: "claude", max_tokens: 50, messages }).finalText();
    assert.deepEqual(settlement(), [["commit", exact]]);
  });

  test("@google/genai, whose client has no copy", async () => {
    const client = newGoogle();
    assert.equal(wrap(client, options()), client);
    for await (const _ of await client.models.generateContentStream({ model: "gemini-3", contents: "Count." }));
    await client.models.generateContent({ model: "gemini-3", contents: "Count.", config: { httpOptions: { timeout: 60_000 } } });
    await client.chats.create({ model: "gemini-3" }).sendMessage({ message: "Count." });
    assert.deepEqual(earmark.verbs, ["reserve", "commit", "reserve", "commit", "reserve", "commit"]);
  });

  test("on top of the client's own fetch and options", async () => {
    let sent = 0;
    const fetch: typeof globalThis.fetch = (...call) => (sent++, globalThis.fetch(...call));
    const client = wrap(new OpenAI({ apiKey: "k", baseURL: `${provider.url}/v1`, maxRetries: 7, fetch }), options());
    await chat(client);
    assert.deepEqual([sent, client.maxRetries, earmark.verbs], [1, 7, ["reserve", "commit"]]);

    const google = wrap(new GoogleGenAI({ apiKey: "k", httpOptions: { baseUrl: provider.url, fetch } }), options());
    await google.models.generateContent({ model: "gemini-3", contents: "Count." });
    assert.equal(sent, 2);
  });

  test("with an Earmark of its own", async () => {
    const original = globalThis.fetch;
    globalThis.fetch = ((input, init) => (String(input).startsWith(provider.url) ? original(input, init) : earmark.fetch(input, init))) as typeof fetch;
    try {
      await chat(wrap(newOpenAI(), { scopes: ["acme"], on_expiry: "commit" }));
    } finally {
      globalThis.fetch = original;
    }
    assert.deepEqual(earmark.verbs, ["reserve", "commit"]);
  });

  test("nothing that it does not know, and nothing twice", () => {
    class Cohere {}
    const refused = (client: object, message: RegExp) => assert.throws(() => wrap(client, options()), (error: any) => error instanceof EarmarkError && error.field === "client" && message.test(error.message));
    refused(new Cohere(), /Cohere is no client that wrap knows \(openai, @anthropic-ai\/sdk, @google\/genai\)/);
    refused(undefined as any, /undefined is no client/);
    refused(openai(), /guarded already/);
    refused(wrap(newGoogle(), options()), /guarded already/);
  });
});

describe("failOpen", () => {
  let away = true;
  beforeEach(() => {
    away = true;
    earmark.intercept = () => (away ? problem(503, "unavailable") : undefined);
  });
  /** Earmark comes back. */
  const back = async (of: Earmark) => {
    away = false;
    earmark.calls.length = 0;
    await of.lateCharges.flush();
  };
  const usages = () => earmark.calls.map(({ verb, body }) => [verb, body.amounts ?? body.provider_usage ?? body.usage]);
  const guarded = (more: Partial<WrapOptions> = {}, lost: LostCharge[] = []) => {
    const own = earmark.client({ maxAttempts: 1, settleLimitMs: 1, onLost: (charge) => void lost.push(charge) });
    const client = wrap(newOpenAI(), options({ earmark: own, failOpen: true, ...more })).withOptions({ maxRetries: 0 });
    return { own, client };
  };

  test("a call runs while Earmark is away, and is charged later under the key of its admission", async () => {
    const { own, client } = guarded();
    await chat(client);
    assert.deepEqual(earmark.verbs.slice(0, 1), ["reserve"]);
    assert.equal(own.lateCharges.pending, 1);
    const key = earmark.calls[0]!.key;
    await back(own);
    assert.deepEqual(usages(), [["usage", { tokens: exact }]]);
    const { scopes, metadata } = earmark.calls[0]!.body;
    assert.deepEqual([earmark.calls[0]!.key, scopes, metadata], [key, ["acme"], { api: "openai_chat", model: "gpt-5", late: "true" }]);
    assert.deepEqual([own.lateCharges.pending, own.lateCharges.charged, own.lateCharges.lost], [0, 1, 0]);
    assert.deepEqual(earmark.logged, ["Earmark is away; calls run without a reservation, and are charged later"]);
  });

  test("what Earmark counts by itself is charged with the model and the tier that the call had", async () => {
    const { own, client } = guarded({ units: undefined, provider: "openai" });
    await client.chat.completions.create({ model: "gpt-5", messages, service_tier: "flex" });
    await back(own);
    const { provider_usage, model, provider, responded_at } = earmark.calls[0]!.body;
    assert.deepEqual([provider_usage, model, provider], [{ service_tier: "flex", prompt_tokens: 11, completion_tokens: 7, total_tokens: 18 }, "gpt-5", "openai"]);
    assert.ok(Date.parse(responded_at) <= Date.now());
  });

  test("a reservation that the lost admission made is committed instead", async () => {
    const { own, client } = guarded();
    await chat(client);
    earmark.intercept = (verb) => (verb === "usage" ? problem(422, "idempotency_mismatch") : undefined);
    await back(own);
    assert.deepEqual(usages(), [["usage", { tokens: exact }], ["reserve", earmark.calls[1]!.body.amounts], ["commit", { tokens: exact }]]);
    assert.equal(earmark.calls[1]!.key, earmark.calls[0]!.key);
  });

  test("and one that expired meanwhile is committed late", async () => {
    const { own, client } = guarded();
    await chat(client);
    earmark.intercept = (verb) => {
      if (verb === "usage") return problem(422, "idempotency_mismatch");
      return verb === "reserve" ? problem(410, "reservation_expired", { reservation_id: "rsv_9" }) : undefined;
    };
    await back(own);
    assert.deepEqual(earmark.verbs, ["usage", "reserve", "commit"]);
  });

  test("a call that the provider refused charges nothing, and leaves no hold", async () => {
    provider.behaviour = { status: 400 };
    const { own, client } = guarded();
    await assert.rejects(chat(client), (error: any) => error.status === 400);
    await back(own);
    assert.deepEqual(earmark.verbs, ["reserve", "release"]);
  });

  test("a stream that breaks is charged an estimate", async () => {
    provider.behaviour = { cutAfter: 2 };
    const { own, client } = guarded();
    await assert.rejects(async () => {
      for await (const _ of await client.chat.completions.create({ model: "gpt-5", messages, stream: true }));
    });
    await back(own);
    const { amounts, metadata } = earmark.calls[0]!.body;
    assert.deepEqual([amounts.tokens > 2, metadata.estimated], [true, "true"]);
  });

  test("usage that nobody knows is charged, free or reported, by the policy", async () => {
    provider.behaviour = { noUsage: true };
    const { own, client } = guarded({ maxOutputTokens: 30 });
    await chat(client);
    await back(own);
    assert.deepEqual(usages(), [["usage", { tokens: provider.bodies[0]!.length + 30 }]]);
    assert.equal(earmark.calls[0]!.body.metadata.estimated, "true");

    away = true;
    const free = guarded({ on_expiry: "release" });
    await chat(free.client);
    await back(free.own);
    assert.deepEqual(earmark.verbs, ["reserve", "release"]);

    away = true;
    const lost: LostCharge[] = [];
    const review = guarded({ on_expiry: "review" }, lost);
    await chat(review.client);
    assert.deepEqual([review.own.lateCharges.lost, review.own.lateCharges.pending, lost.length], [1, 0, 1]);
    assert.equal(lost[0]!.request.scopes[0], "acme");
  });

  test("a charge that Earmark refuses is lost, logged and counted", async () => {
    const lost: LostCharge[] = [];
    const { own, client } = guarded({}, lost);
    await chat(client);
    earmark.intercept = () => problem(404, "no_budget");
    await back(own);
    assert.deepEqual([own.lateCharges.pending, own.lateCharges.charged, own.lateCharges.lost], [0, 0, 1]);
    assert.deepEqual([lost[0]!.usage, (lost[0]!.error as EarmarkError).code], [{ usage: { tokens: exact } }, "no_budget"]);
    assert.ok(earmark.logged.includes("a late charge is lost"));
  });

  test("beyond maxPending calls fail closed", async () => {
    const { own, client } = guarded({ failOpen: { maxPending: 2 } });
    await chat(client);
    await chat(client);
    await assert.rejects(chat(client), (error: any) => error.status === 503);
    assert.equal(provider.bodies.length, 2);
    await back(own);
    assert.equal(own.lateCharges.charged, 2);
    await chat(client);
  });

  test("a denial is no outage", async () => {
    earmark.intercept = () => problem(402, "budget_exceeded");
    await assert.rejects(chat(guarded().client), (error: any) => error.status === 402);
    assert.deepEqual(provider.bodies, []);
  });

  test("an Earmark that hangs is waited for as long as afterMs says", async () => {
    let answer = (_: Response) => {};
    earmark.intercept = () => new Promise<Response>((resolve) => (answer = resolve));
    const own = new Earmark({ baseUrl: "http://earmark.test", logger: { warn() {}, error() {} }, fetch: (input, init) => Promise.race([earmark.fetch(input, init), aborted(init?.signal)]) });
    await chat(wrap(newOpenAI(), options({ earmark: own, failOpen: { afterMs: 50 } })));
    assert.equal(provider.bodies.length, 1);
    answer(problem(503, "unavailable"));
    earmark.intercept = () => undefined;
    await own.lateCharges.flush();
    assert.equal(own.lateCharges.charged, 1);
  });

  test("a settlement that fails because Earmark went away is sent later", async () => {
    const { own, client } = guarded();
    earmark.intercept = (verb) => (verb !== "reserve" && away ? problem(503, "unavailable") : undefined);
    await chat(client);
    provider.behaviour = { status: 400 };
    await assert.rejects(chat(client));
    await back(own);
    assert.deepEqual(own.lateCharges.charged, 2);
    assert.deepEqual(earmark.verbs, ["commit", "release"]);
    assert.deepEqual(earmark.calls[0]!.body, { usage: { tokens: exact } });
  });

  test("options that mean nothing are refused", () => {
    assert.throws(() => openai({ failOpen: { afterMs: 0 } }), (error: any) => error instanceof EarmarkError && error.field === "failOpen.afterMs");
  });

  // The admission arrives and its answer is lost: the hold is settled by the late charge, and nothing is charged twice.
  test("on a real Earmark each call is charged once", { skip: process.env["EARMARK_TEST_URL"] ? false : "EARMARK_TEST_URL names none" }, async () => {
    let lose: "request" | "answer" | undefined;
    const cut: typeof globalThis.fetch = async (input, init) => {
      if (lose === "request") throw new Error("cut");
      const response = await fetch(input, init);
      if (lose === "answer") throw new Error("cut");
      return response;
    };
    const own = new Earmark({ baseUrl: process.env["EARMARK_TEST_URL"]!, fetch: cut, maxAttempts: 1, logger: { warn() {}, error() {} } });
    const scope = `open-${crypto.randomUUID()}`;
    const budget = await own.createBudget({ scope, unit: "tokens", limit: 1_000_000 });
    try {
      for (const units of [["tokens"], undefined] as WrapOptions["units"][]) {
        const client = wrap(newOpenAI(), { earmark: own, scopes: [scope], on_expiry: "commit", units, failOpen: true });
        for (lose of [undefined, "request", "answer"] as const) {
          await chat(client);
          await client.chat.completions.create({ model: "gpt-5", messages, service_tier: "flex" });
          provider.behaviour = { status: 400 };
          await assert.rejects(chat(client));
          provider.behaviour = {};
        }
      }
    } finally {
      lose = undefined; // else what waits would keep the process alive
      await own.lateCharges.flush();
    }
    const { committed, reserved } = (await own.getBudget(budget.id)).balance;
    assert.deepEqual([committed, reserved, own.lateCharges.lost, own.lateCharges.pending], [12 * exact, 0, 0, 0]);
  });
});

const aborted = (signal: AbortSignal | null | undefined): Promise<never> => new Promise((_, reject) => signal?.addEventListener("abort", () => reject(signal.reason), { once: true }));
