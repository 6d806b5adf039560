import assert from "node:assert/strict";
import crypto from "node:crypto";
import { after, before, beforeEach, describe, test } from "node:test";

import { createAnthropic as anthropic7 } from "@ai-sdk/anthropic";
import { createOpenAI as openai7 } from "@ai-sdk/openai";
import * as ai7 from "ai";
import * as ai5 from "ai5";
import * as ai6 from "ai6";
import { createAnthropic as anthropic5 } from "ai5-anthropic";
import { createOpenAI as openai5 } from "ai5-openai";
import { createAnthropic as anthropic6 } from "ai6-anthropic";
import { createOpenAI as openai6 } from "ai6-openai";

import { denialOf, Earmark, isDenied } from "@earmark-dev/client";
import { earmarkMiddleware, type EarmarkMiddlewareOptions } from "@earmark-dev/client/ai";
import { FakeEarmark, problem } from "./fake.js";
import { FakeProvider } from "./provider.js";

const exact = 18; // what the fake provider bills for a call
const text = "one two three ✓";

let provider: FakeProvider;
let earmark: FakeEarmark;
before(async () => void (provider = await FakeProvider.start()));
after(() => provider.stop());
beforeEach(() => {
  earmark = new FakeEarmark();
  provider.behaviour = {};
  provider.bodies.length = 0;
});

// The middleware fits the types of each version.
export const typed = (middleware: ReturnType<typeof earmarkMiddleware>): [ai5.LanguageModelMiddleware, ai6.LanguageModelMiddleware, ai7.LanguageModelMiddleware] => [middleware, middleware, middleware];

interface Version {
  ai: any;
  openai: any;
  anthropic: any;
}
const versions: Record<string, Version> = {
  "ai 5": { ai: ai5, openai: openai5, anthropic: anthropic5 },
  "ai 6": { ai: ai6, openai: openai6, anthropic: anthropic6 },
  "ai 7": { ai: ai7, openai: openai7, anthropic: anthropic7 },
};

for (const [name, { ai, openai, anthropic }] of Object.entries(versions)) {
  const middleware = (more: Partial<EarmarkMiddlewareOptions> = {}) =>
    earmarkMiddleware({ earmark: earmark.client({ maxAttempts: 1 }), scopes: ["acme"], on_expiry: "commit", units: ["tokens"], ...more });
  const wrapped = (model: unknown, more: Partial<EarmarkMiddlewareOptions> = {}) => ai.wrapLanguageModel({ model, middleware: middleware(more) });
  const gpt = (more: Partial<EarmarkMiddlewareOptions> = {}) => wrapped(openai({ apiKey: "k", baseURL: `${provider.url}/v1` }).chat("gpt-5"), more);
  const claude = (more: Partial<EarmarkMiddlewareOptions> = {}) => wrapped(anthropic({ apiKey: "k", baseURL: `${provider.url}/v1` })("claude-sonnet-4-5"), more);
  const generate = (model: unknown, more: object = {}) => ai.generateText({ model, prompt: "Count.", maxRetries: 0, ...more });
  const settlement = () => earmark.calls.slice(1).map(({ verb, body }) => [verb, body.usage?.tokens, body.estimated]);
  /** Reads a stream as its user does, and returns the text and the errors. */
  const stream = async (model: unknown, more: object = {}) => {
    const errors: unknown[] = [];
    let got = "";
    const result = ai.streamText({ model, prompt: "Count.", maxRetries: 0, onError: ({ error }: { error: unknown }) => void errors.push(error), ...more });
    for await (const part of result.textStream) got += part;
    return { got, errors };
  };
  /** Waits for what happens after the reader has left. */
  const settled = async () => {
    const deadline = Date.now() + 10_000;
    while (earmark.calls.length < 2 && Date.now() < deadline) await new Promise((resolve) => setTimeout(resolve, 5));
  };
  const estimated = () => {
    const [[verb, tokens, isEstimate]] = settlement() as [[string, number, boolean]];
    assert.deepEqual([verb, isEstimate], ["commit", true]);
    return tokens;
  };

  describe(`earmarkMiddleware with ${name}`, () => {
    test("commits what the provider says, and asks for no more than it has reserved", async () => {
      const result = await generate(gpt(), { maxOutputTokens: 40 });
      assert.equal(result.text, text);
      assert.equal(JSON.parse(provider.bodies[0]!).max_completion_tokens, 40);
      const { amounts, metadata } = earmark.calls[0]!.body;
      assert.deepEqual(metadata, { api: "ai_sdk", model: "gpt-5" });
      assert.ok(amounts.tokens > 40 + "Count.".length && amounts.tokens < 400, `${amounts.tokens}`);
      assert.deepEqual(settlement(), [["commit", exact, undefined]]);
    });

    test("limits a call that sets no limit to what it has reserved", async () => {
      await generate(gpt({ inputTokens: () => 20, maxOutputTokens: 30 }));
      assert.equal(JSON.parse(provider.bodies[0]!).max_completion_tokens, 30);
      assert.deepEqual(earmark.calls[0]!.body.amounts, { tokens: 50 });
      await generate(gpt({ inputTokens: () => 20 }));
      assert.equal(JSON.parse(provider.bodies[1]!).max_completion_tokens, 16_384);
    });

    test("commits a stream before its end", async () => {
      let finished: string[] = [];
      const { got, errors } = await stream(gpt(), { onFinish: () => void (finished = earmark.verbs) });
      assert.deepEqual([got, errors], [text, []]);
      assert.deepEqual(settlement(), [["commit", exact, undefined]]);
      assert.deepEqual(finished, ["reserve", "commit"]);
    });

    test("counts the cache of Anthropic", async () => {
      await generate(claude());
      assert.deepEqual(settlement(), [["commit", exact, undefined]]);
      earmark.calls.length = 0;
      assert.equal((await stream(claude())).got, text);
      assert.deepEqual(settlement(), [["commit", exact, undefined]]);
    });

    test("reserves the thinking that Anthropic's package asks for beside the output", async () => {
      await generate(claude({ inputTokens: () => 20 }), { maxOutputTokens: 100, providerOptions: { anthropic: { thinking: { type: "enabled", budgetTokens: 2_000 } } } });
      assert.equal(JSON.parse(provider.bodies[0]!).max_tokens, 2_100);
      assert.deepEqual(earmark.calls[0]!.body.amounts, { tokens: 2_120 });
    });

    test("reserves whatever thinking that package makes of `reasoning`", { skip: name === "ai 7" ? false : "ai 7 has it" }, async () => {
      await generate(claude({ inputTokens: () => 20 }), { maxOutputTokens: 100, reasoning: "xhigh" });
      const asked = JSON.parse(provider.bodies[0]!).max_tokens;
      assert.ok(asked > 50_000, `${asked}`);
      assert.ok(earmark.calls[0]!.body.amounts.tokens >= asked + 20);
    });

    test("lets Earmark count", async () => {
      await generate(gpt({ units: undefined, inputTokens: () => 20, provider: "openai", require_budget: true }), { maxOutputTokens: 30 });
      assert.equal(earmark.calls[0]!.body.require_budget, true);
      assert.deepEqual(earmark.calls[0]!.body.estimate, { model: "gpt-5", provider: "openai", input_tokens: 20, max_output_tokens: 30, n: 1 });
      const { provider_usage: usage, usage_format: format } = earmark.calls[1]!.body;
      assert.equal(format, name === "ai 5" ? "openai_chat" : "ai_sdk_v6");
      assert.deepEqual([usage.prompt_tokens ?? usage.inputTokens.total, usage.completion_tokens ?? usage.outputTokens.total], [11, 7]);
    });

    test("counts the bytes of a file, and asks a function for the scopes", async () => {
      const content = [{ type: "text", text: "Look." }, { type: "image", image: new Uint8Array(3_000), mediaType: "image/png" }];
      await ai.generateText({ model: gpt({ scopes: ({ modelId, provider, stream }) => [`${modelId}/${provider.replace(".", "-")}/${stream}`] }), messages: [{ role: "user", content }], maxOutputTokens: 1 });
      const { amounts, scopes } = earmark.calls[0]!.body;
      assert.ok(amounts.tokens > 4_000 && amounts.tokens < 4_500, `${amounts.tokens}`);
      assert.deepEqual(scopes, ["gpt-5/openai-chat/false"]);
    });

    test("a denial is not repeated", async () => {
      earmark.intercept = () => problem(402, "budget_exceeded", { violations: [{ budget_id: "bud_1" }] });
      await assert.rejects(generate(gpt(), { maxRetries: 2 }), (error: any) => isDenied(error) && denialOf(error)?.violations[0]?.budget_id === "bud_1");
      assert.deepEqual(earmark.verbs, ["reserve"]);
      const { got, errors } = await stream(gpt(), { maxRetries: 2 });
      assert.deepEqual([got, errors.length, isDenied(errors[0])], ["", 1, true]);
      assert.deepEqual(earmark.verbs, ["reserve", "reserve"]);
      assert.deepEqual(provider.bodies, []);
    });

    test("a denial of a later attempt is found in the error of the attempts", async () => {
      provider.behaviour = { status: 500, headers: { "retry-after-ms": "1" } };
      earmark.intercept = (verb) => (verb === "reserve" && earmark.verbs.length > 2 ? problem(402, "budget_exceeded", { violations: [] }) : undefined);
      await assert.rejects(generate(gpt(), { maxRetries: 2 }), (error) => denialOf(error) !== undefined);
      assert.deepEqual(earmark.verbs, ["reserve", "release", "reserve"]);
    });

    test("an attempt that the provider refused is released, before the next one reserves", async () => {
      provider.behaviour = { status: 500, headers: { "retry-after-ms": "1" } };
      await assert.rejects(generate(gpt(), { maxRetries: 1 }));
      assert.deepEqual(earmark.verbs, ["reserve", "release", "reserve", "release"]);
      provider.behaviour = { status: 504 };
      await assert.rejects(generate(gpt()));
      assert.deepEqual(earmark.verbs.slice(4), ["reserve"], "behind a time-out the model may have run");
    });

    test("a connection that is never made is released", async () => {
      const closed = await FakeProvider.start();
      const model = wrapped(openai({ apiKey: "k", baseURL: `${closed.url}/v1` }).chat("gpt-5"));
      await closed.stop();
      await assert.rejects(generate(model));
      const { errors } = await stream(model);
      assert.equal(errors.length, 1);
      assert.deepEqual(earmark.verbs, ["reserve", "release", "reserve", "release"]);
    });

    test("what the AI SDK refuses by itself is released", async () => {
      delete process.env["OPENAI_API_KEY"];
      await assert.rejects(generate(wrapped(openai({ baseURL: `${provider.url}/v1` }).chat("gpt-5"))), /API key/);
      assert.deepEqual(earmark.verbs, ["reserve", "release"]);
    });

    test("a connection that breaks before the answer is left to the policy", async () => {
      provider.behaviour = { cutAfter: 0 };
      await assert.rejects(generate(gpt()));
      assert.deepEqual(earmark.verbs, ["reserve"]);
      assert.ok(earmark.unsettled[0]?.usageUnknown);
    });

    test("an answer without usage is left to the policy", async () => {
      provider.behaviour = { noUsage: true };
      await generate(gpt());
      assert.deepEqual(earmark.verbs, ["reserve"]);
    });

    const answers = (usage: object) => {
      const choice = { index: 0, message: { role: "assistant", content: text }, finish_reason: "stop" };
      provider.behaviour = { raw: JSON.stringify({ id: "c1", object: "chat.completion", created: 1, model: "gpt-5", choices: [choice], usage }) };
    };

    test("what a total has beyond its parts is charged", async () => {
      answers({ prompt_tokens: 11, completion_tokens: 4, total_tokens: exact });
      await generate(gpt());
      assert.deepEqual(settlement(), [["commit", exact, undefined]]);
    });

    test("numbers that count nothing are no usage", async () => {
      answers({ prompt_tokens: -11, completion_tokens: -7, total_tokens: -18 });
      await generate(gpt());
      assert.deepEqual(earmark.verbs, ["reserve"]);
      assert.ok(earmark.unsettled[0]?.usageUnknown);
    });

    test("a stream whose connection breaks is charged an estimate", async () => {
      provider.behaviour = { cutAfter: 2 };
      await stream(gpt()).catch(() => {});
      assert.ok(estimated() > 2);
    });

    test("a stream that ends in the middle is charged an estimate, though it looks like a whole one", async () => {
      provider.behaviour = { endAfter: 2 };
      const { got, errors } = await stream(gpt());
      assert.deepEqual([got, errors], ["one two", []]);
      assert.ok(estimated() > 2);
      assert.ok(estimated() < 100);
    });

    test("of Anthropic too, by the input that the provider counted", async () => {
      provider.behaviour = { endAfter: 4 };
      await stream(claude());
      const tokens = estimated();
      assert.ok(tokens >= 11 + 2 && tokens < 100, `${tokens}`);
    });

    test("a stream that says nothing is left to the policy", async () => {
      provider.behaviour = { endAfter: 0 };
      await stream(gpt()).catch(() => {});
      assert.deepEqual(earmark.verbs, ["reserve"]);
    });

    test("a stream without usage is charged an estimate", async () => {
      provider.behaviour = { noUsage: true };
      await stream(gpt());
      assert.ok(estimated() > 3);
    });

    test("an abort, which stops the provider, is charged an estimate", async () => {
      provider.behaviour = { slow: true };
      const caller = new AbortController();
      const result = ai.streamText({ model: gpt(), prompt: "Count.", abortSignal: caller.signal, onError() {} });
      try {
        for await (const _ of result.textStream) caller.abort();
      } catch {
        // some versions throw
      }
      await settled();
      assert.ok(estimated() > 1);
    });

    test("an abort while nobody reads settles", async () => {
      provider.behaviour = { hangAfter: 2 };
      const caller = new AbortController();
      const model = gpt();
      const { stream: parts } = await model.doStream({ prompt: [{ role: "user", content: [{ type: "text", text: "Count." }] }], abortSignal: caller.signal });
      const reader = parts.getReader();
      while ((await reader.read()).value?.type !== "text-delta");
      caller.abort();
      await settled();
      assert.ok(estimated() > 1);
    });

    test("after break the provider writes on, and all of it is charged", async () => {
      provider.behaviour = { slow: true };
      const result = ai.streamText({ model: gpt(), prompt: "Count.", onError() {} });
      for await (const _ of result.textStream) break;
      await settled();
      assert.deepEqual(settlement(), [["commit", exact, undefined]]);
    });

    test("while Earmark is away a call fails once, or with failOpen is charged later", async () => {
      earmark.intercept = () => problem(503, "unavailable");
      await assert.rejects(generate(gpt(), { maxRetries: 2 }), (error: any) => error.code === "unavailable");
      assert.deepEqual([earmark.verbs, provider.bodies], [["reserve"], []]);

      const own = earmark.client({ maxAttempts: 1 });
      assert.equal((await stream(gpt({ earmark: own, failOpen: true }))).got, text);
      earmark.intercept = () => undefined;
      earmark.calls.length = 0;
      await own.lateCharges.flush();
      assert.deepEqual(earmark.calls.map(({ verb, body }) => [verb, body.amounts]), [["usage", { tokens: exact }]]);
    });

    test("on a real Earmark, which counts by itself", { skip: process.env["EARMARK_TEST_URL"] ? false : "EARMARK_TEST_URL names none" }, async () => {
      const real = new Earmark({ baseUrl: process.env["EARMARK_TEST_URL"]! });
      const scope = `ai-${crypto.randomUUID()}`;
      const budget = await real.createBudget({ scope, unit: "tokens", limit: 1_000_000 });
      const more = { earmark: real, scopes: [scope], on_expiry: "review" as const, units: undefined };
      for (const model of [gpt(more), claude(more)]) {
        await generate(model);
        await stream(model);
      }
      provider.behaviour = { endAfter: 2 };
      await stream(gpt(more));
      const { data } = await real.listReservations({ scope, limit: 500 });
      assert.deepEqual(data.map((r) => [r.state, r.estimated, r.estimated || r.usage?.["tokens"]]).sort(), [["committed", false, exact], ["committed", false, exact], ["committed", false, exact], ["committed", false, exact], ["committed", true, true]]);
      assert.equal((await real.getBudget(budget.id)).balance.reserved, 0);
    });
  });
}
