// Measures what docs/integrations.md says of each package, with the package itself. After a change of behaviour the page is wrong: the
// message has the right rows.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { after, before, test } from "node:test";

import { createOpenAI as openai7 } from "@ai-sdk/openai";
import Anthropic from "@anthropic-ai/sdk";
import { GoogleGenAI } from "@google/genai";
import { ChatAnthropic } from "@langchain/anthropic";
import { ChatOpenAI } from "@langchain/openai";
import { Agent, OpenAIProvider, Runner } from "@openai/agents";
import { activityInfo, asyncLocalStorage } from "@temporalio/activity";
import { createActivities } from "@temporalio/ai-sdk";
import { ApplicationFailure } from "@temporalio/common";
import * as ai7 from "ai";
import * as ai5 from "ai5";
import { createOpenAI as openai5 } from "ai5-openai";
import * as ai6 from "ai6";
import { createOpenAI as openai6 } from "ai6-openai";
import OpenAI from "openai";

import { denialOf, guardedFetch, wrap } from "@earmark-dev/client";
import { earmarkMiddleware } from "@earmark-dev/client/ai";
import { FakeEarmark, problem } from "./fake.js";
import { FakeProvider } from "./provider.js";

const root = new URL("../../", import.meta.url);
const prompt = "Count.";
const messages = [{ role: "user" as const, content: prompt }];

let provider: FakeProvider;
let earmark: FakeEarmark;
before(async () => void (provider = await FakeProvider.start()));
after(() => provider.stop());

const options = () => ({ earmark: earmark.client({ maxAttempts: 1 }), scopes: ["acme"], on_expiry: "commit" as const, units: ["tokens" as const] });

interface Integration {
  /** A folder of node_modules. */
  folder: string;
  /** How many lines of an application change. */
  lines: number;
  /** Asks for an answer. retries: how often the package may try again. */
  ask(retries: number): Promise<unknown>;
  /** Reads a stream until its first text, and aborts. */
  abort(caller: AbortController): Promise<void>;
  /** Asks one model, and another one if that fails, without other attempts. */
  fallBack(): Promise<unknown>;
  /** Whether an error is the denial; by denialOf. */
  isDenial?(error: any): boolean;
}

async function readThenAbort(stream: AsyncIterable<unknown>, caller: AbortController): Promise<void> {
  for await (const _ of stream) caller.abort();
}

const either = (ask: () => Promise<unknown>) => () => ask().catch(ask);

function withClient(folder: string, ask: (retries: number) => Promise<unknown>, stream: (signal: AbortSignal) => Promise<AsyncIterable<unknown>>): Integration {
  return { folder, lines: 1, ask, abort: async (caller) => readThenAbort(await stream(caller.signal), caller), fallBack: either(() => ask(0)) };
}

function withAISDK(folder: string, ai: any, createOpenAI: any): Integration {
  const model = () => ai.wrapLanguageModel({ model: createOpenAI({ apiKey: "k", baseURL: `${provider.url}/v1` }).chat("gpt-5"), middleware: earmarkMiddleware(options()) });
  const ask = (maxRetries: number) => ai.generateText({ model: model(), prompt, maxRetries });
  const stream = async (abortSignal: AbortSignal) => ai.streamText({ model: model(), prompt, abortSignal, onError() {} }).textStream;
  return { ...withClient(folder, ask, stream), lines: 2 };
}

function withLangChain(folder: string, model: (retries: number) => any): Integration {
  const ask = (retries: number) => model(retries).invoke(prompt);
  return { ...withClient(folder, ask, (signal) => model(0).stream(prompt, { signal })), fallBack: () => model(0).withFallbacks([model(0)]).invoke(prompt) };
}

/** The activities of the package, with the attempts that Temporal's server makes by the default retry policy. */
function withTemporal(): Integration {
  const run = (attempt: number, cancellationSignal?: AbortSignal): Promise<unknown> => {
    const middleware = earmarkMiddleware({
      ...options(),
      key() {
        const { workflowExecution, activityId, attempt } = activityInfo();
        return `${workflowExecution?.runId}/${activityId}/${attempt}`;
      },
      onDenied: ({ retryable }) => ApplicationFailure.create({ message: "The budget is used up.", type: "budget_exceeded", nonRetryable: !retryable }),
    });
    const openai = openai7({ apiKey: "k", baseURL: `${provider.url}/v1` });
    const { invokeModel } = createActivities(ai7.wrapProvider({ provider: openai, languageModelMiddleware: middleware })) as any;
    const info = { workflowExecution: { workflowId: "w", runId: "run" }, activityId: "7", attempt };
    const call = { modelId: "gpt-5", options: { prompt: [{ role: "user", content: [{ type: "text", text: prompt }] }] } };
    return asyncLocalStorage.run({ info, cancellationSignal } as any, () => invokeModel(call));
  };
  const ask = async (retries: number): Promise<unknown> => {
    for (let attempt = 1; ; attempt++) {
      try {
        return await run(attempt);
      } catch (error) {
        if ((error as { nonRetryable?: boolean }).nonRetryable || attempt > retries) throw error;
      }
    }
  };
  const abort = async (caller: AbortController) => {
    const answer = run(1, caller.signal);
    caller.abort();
    await answer;
  };
  return { folder: "@temporalio/ai-sdk", lines: 9, ask, abort, fallBack: either(() => ask(0)), isDenial: (error) => error.type === "budget_exceeded" };
}

const openai = (maxRetries: number) => wrap(new OpenAI({ apiKey: "k", baseURL: `${provider.url}/v1`, maxRetries }), options());
const anthropic = (maxRetries: number) => wrap(new Anthropic({ apiKey: "k", baseURL: provider.url, maxRetries }), options());
const google = (retries: number) =>
  wrap(new GoogleGenAI({ apiKey: "k", httpOptions: { baseUrl: provider.url, ...(retries > 0 && { retryOptions: { attempts: retries + 1 } }) } }), options());
const runner = (retries: number) => new Runner({ tracingDisabled: true, modelProvider: new OpenAIProvider({ openAIClient: openai(retries) as any }) });
const agent = () => new Agent({ name: "counter", instructions: "Count.", model: "gpt-5" });

const integrations: Integration[] = [
  withClient("openai", (retries) => openai(retries).chat.completions.create({ model: "gpt-5", messages }), (signal) => openai(0).chat.completions.create({ model: "gpt-5", messages, stream: true }, { signal })),
  withClient("@anthropic-ai/sdk", (retries) => anthropic(retries).messages.create({ model: "claude", max_tokens: 50, messages }), async (signal) => anthropic(0).messages.create({ model: "claude", max_tokens: 50, messages, stream: true }, { signal })),
  withClient("@google/genai", (retries) => google(retries).models.generateContent({ model: "gemini-3", contents: prompt }), (abortSignal) => google(0).models.generateContentStream({ model: "gemini-3", contents: prompt, config: { abortSignal } })),
  withAISDK("ai5", ai5, openai5),
  withAISDK("ai6", ai6, openai6),
  withAISDK("ai", ai7, openai7),
  withLangChain("@langchain/openai", (maxRetries) => new ChatOpenAI({ model: "gpt-5", apiKey: "k", maxRetries, configuration: { baseURL: `${provider.url}/v1`, fetch: guardedFetch(options()) as any } })),
  withLangChain("@langchain/anthropic", (maxRetries) => new ChatAnthropic({ model: "claude", apiKey: "k", maxRetries, maxTokens: 50, anthropicApiUrl: provider.url, clientOptions: { fetch: guardedFetch(options()) as any } })),
  withClient("@openai/agents", (retries) => runner(retries).run(agent(), prompt), (signal) => runner(0).run(agent(), prompt, { stream: true, signal })),
  withTemporal(),
];

/** What Earmark was asked to do, without the extensions of leases. */
function story(): string {
  const words: Record<string, string> = { reserve: "reserved", release: "released", usage: "charged later" };
  const seen = earmark.calls.filter(({ verb }) => verb !== "extend");
  return seen.map(({ verb, body }) => words[verb] ?? (body.estimated ? "charged an estimate" : "charged")).join(", ");
}

async function errorOf(ask: () => Promise<unknown>): Promise<any> {
  try {
    await ask();
  } catch (error) {
    return error;
  }
  throw new assert.AssertionError({ message: "the call did not fail" });
}

const times = (n: number): string => (n === 1 ? "once" : `${n} times`);

/** An error by its class, with what it says of the answer, and how often Earmark was asked. */
function heard(error: any): string {
  const status = error.status ?? error.statusCode;
  return `\`${error.constructor.name}\`${typeof status === "number" ? ` ${status}` : ""}, ${times(earmark.calls.length)}`;
}

const measures: Record<string, (integration: Integration) => Promise<string>> = {
  async denied({ ask, isDenial = (error) => denialOf(error)?.violations[0]?.budget_id === "bud_1" }) {
    earmark.intercept = () => problem(402, "budget_exceeded", { violations: [{ budget_id: "bud_1" }] });
    const error = await errorOf(() => ask(1));
    assert.ok(isDenial(error));
    assert.deepEqual(provider.bodies, [], "the model is not called");
    return heard(error);
  },
  async abort({ abort }) {
    provider.behaviour = { slow: true };
    await abort(new AbortController()).catch(() => {});
    const deadline = Date.now() + 10_000;
    while (earmark.calls.length < 2 && Date.now() < deadline) await new Promise((resolve) => setTimeout(resolve, 5));
    return story();
  },
  async "retry after 500"({ ask }) {
    provider.next.push({ status: 500, headers: { "retry-after-ms": "1" } });
    await ask(1);
    return story();
  },
  async "retry after a broken connection"({ ask }) {
    provider.next.push({ cutAfter: 0 });
    const error = await ask(1).then(() => undefined, (failed) => failed);
    return error === undefined ? story() : `${story()}; not repeated`;
  },
  async fallback({ fallBack }) {
    provider.next.push({ status: 500, headers: { "x-should-retry": "false" } });
    await fallBack();
    return story();
  },
  async "Earmark away"({ ask }) {
    earmark.intercept = () => problem(503, "unavailable");
    const error = await errorOf(() => ask(1));
    assert.deepEqual(provider.bodies, [], "the model is not called");
    return heard(error);
  },
};

const rows: string[] = [];
for (const integration of integrations) {
  const { name, version } = JSON.parse(readFileSync(new URL(`node_modules/${integration.folder}/package.json`, root), "utf8"));
  test(`integrations: ${name} ${version}`, async (t) => {
    const cells = [`\`${name}\``, version, String(integration.lines)];
    for (const [what, measure] of Object.entries(measures)) {
      await t.test(what, async () => {
        earmark = new FakeEarmark();
        provider.behaviour = {};
        provider.next.length = 0;
        provider.bodies.length = 0;
        cells.push(await measure(integration));
      });
    }
    rows.push(`| ${cells.join(" | ")} |`);
  });
}

test("integrations: each attempt of a Temporal activity has a key of its own", async () => {
  earmark = new FakeEarmark();
  provider.next.push({ status: 500 });
  await withTemporal().ask(1);
  assert.deepEqual(earmark.calls.filter(({ verb }) => verb === "reserve").map(({ key }) => key), ["run/7/1", "run/7/2"]);
});

test("integrations: the page has these rows and no others", () => {
  const page = readFileSync(new URL("../../docs/integrations.md", root), "utf8");
  const [section] = page.split("\n## Python\n");
  const shown = section!.split("\n").filter((line) => line.startsWith("| `"));
  assert.deepEqual(shown, rows, `docs/integrations.md needs these rows:\n${rows.join("\n")}\n`);
});
