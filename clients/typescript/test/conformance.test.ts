// Runs the cases of test/conformance. With EARMARK_CONFORMANCE_URL, their server runs already, such as beside a real Earmark.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { after, describe, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";

import { Earmark, EarmarkError, guardedFetch, isDenied, KeyInUseError, NothingSentError, UnsettledError, type GuardedFetchOptions, type Meter, type Settled } from "@earmark-dev/client";

interface Count {
  add?: Record<string, number>;
  set?: Record<string, number>;
}
interface Work {
  takes_ms?: number;
  meter?: Count[];
  caller_leaves?: boolean;
  fails?: string;
  nothing_sent?: boolean;
}
interface Step {
  op: string;
  key?: string;
  id?: string;
  budget?: string;
  request?: any;
  work?: Work;
}
interface ProviderCall {
  method?: string;
  path: string;
  headers?: Record<string, string>;
  text?: string;
  leaves_after?: number;
  leaves?: "abort" | "close";
}
interface Session {
  id: string;
  url: string;
  client: { api_key?: string; max_attempts?: number; settle_limit_ms?: number };
  steps: (Step & { call?: ProviderCall })[];
  provider_url?: string;
  transport?: Pick<GuardedFetchOptions, "scopes" | "on_expiry" | "units" | "require_budget"> & { max_output_tokens?: number; pass_unknown?: boolean; fail_open?: boolean };
}
type Result = Record<string, unknown>;

const base = process.env["EARMARK_CONFORMANCE_URL"] ?? (await serve());

async function serve(): Promise<string> {
  const server = spawn("go", ["run", "-C", "../../test", "./conformance/server"], { stdio: ["pipe", "pipe", "inherit"] });
  after(() => server.stdin.end());
  const [line] = await once(server.stdout, "data");
  return String(line).trim();
}

async function control(path: string, body?: unknown): Promise<any> {
  const response = await fetch(base + path, body === undefined ? {} : { method: "POST", body: JSON.stringify(body) });
  assert.ok(response.ok, `${path}: ${response.status}`);
  return response.json();
}

const { cases, transport_cases } = (await control("/control/cases")) as { cases: string[]; transport_cases: string[] };
assert.ok(cases.length > 40);
assert.ok(transport_cases.length > 40);

describe("conformance", { concurrency: 16 }, () => {
  for (const name of cases) {
    test(name, async () => {
      const session = (await control("/control/sessions", { case: name })) as Session;
      const runner = new Runner(session);
      const results: Result[] = [];
      for (const step of session.steps) results.push(await runner.run(step));
      const { failures } = await control(`/control/sessions/${session.id}/finish`, { results });
      assert.deepEqual(failures, []);
    });
  }
});

describe("conformance of guardedFetch", { concurrency: 16 }, () => {
  for (const name of transport_cases) {
    test(name, async () => {
      const session = (await control("/control/sessions", { case: name })) as Session;
      const runner = new TransportRunner(session);
      const results: Result[] = [];
      for (const { call } of session.steps) results.push(await runner.call(call!));
      const { failures } = await control(`/control/sessions/${session.id}/finish`, { results });
      assert.deepEqual(failures, []);
    });
  }
});

class TransportRunner {
  readonly #fetch: typeof globalThis.fetch;
  readonly #providerUrl: string;
  #unsettled: UnsettledError | undefined;

  constructor({ url, client, provider_url, transport }: Session) {
    this.#providerUrl = provider_url!;
    const { max_output_tokens, pass_unknown, fail_open, ...same } = transport!;
    const earmark = new Earmark({
      baseUrl: url,
      maxAttempts: client.max_attempts ?? 1,
      logger: { warn() {}, error() {} },
      onUnsettled: (unsettled) => void (this.#unsettled = unsettled),
    });
    this.#fetch = guardedFetch({ earmark, ...same, maxOutputTokens: max_output_tokens, passUnknown: pass_unknown, failOpen: fail_open });
  }

  async call(call: ProviderCall): Promise<Result> {
    this.#unsettled = undefined;
    const result = await this.#send(call);
    return this.#unsettled === undefined ? result : { ...result, unsettled: unsettledResult(this.#unsettled) };
  }

  async #send({ method = "POST", path, headers, text, leaves_after = Infinity, leaves }: ProviderCall): Promise<Result> {
    const caller = new AbortController();
    let response: Response;
    try {
      const init = { method, headers: { "Content-Type": "application/json", ...headers }, ...(text !== undefined && { body: text }), signal: caller.signal };
      response = await this.#fetch(this.#providerUrl + path, init);
    } catch {
      return { failed: true };
    }
    const result: Result = { status: response.status, should_retry: response.headers.get("x-should-retry"), retry_after: response.headers.get("retry-after") };
    const reader = response.body!.getReader();
    const decoder = new TextDecoder();
    let read = "";
    try {
      for (;;) {
        const { done, value } = await reader.read();
        read += decoder.decode(value, { stream: !done });
        if (done) break;
        if (read.replace(/\r\n?/g, "\n").split("\n\n").length <= leaves_after) continue;
        if (leaves === "abort") {
          caller.abort();
          await assert.rejects(reader.read(), { name: "AbortError" });
        } else await reader.cancel();
        result["caller_left"] = true;
        break;
      }
    } catch {
      result["broke"] = true;
    }
    return { ...result, text: read, body: jsonOf(read) };
  }
}

function jsonOf(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

class Runner {
  readonly #earmark: Earmark;
  #lastId = "";
  #lastBudget = "";

  constructor({ url, client }: Session) {
    this.#earmark = new Earmark({
      baseUrl: url,
      apiKey: client.api_key ?? "",
      maxAttempts: client.max_attempts,
      settleLimitMs: client.settle_limit_ms,
      logger: { warn() {}, error() {} },
    });
  }

  async run(step: Step): Promise<Result> {
    if (step.op === "guard") return this.#guard(step);
    try {
      const value = await this.#call({ ...step, id: step.id === "$id" ? this.#lastId : step.id, budget: step.budget === "$budget" ? this.#lastBudget : step.budget });
      if (typeof value.accepted === "boolean") return settledResult(value);
      if (step.op === "create_budget") this.#lastBudget = value.id;
      else this.#lastId = value.id ?? this.#lastId;
      return { value };
    } catch (error) {
      return { error: failure(error) };
    }
  }

  #call({ op, key, id = "", budget = "", request }: Step): Promise<any> {
    switch (op) {
      case "reserve":
        return this.#earmark.reserve(request, { key });
      case "decide":
        return this.#earmark.decide(request);
      case "charge":
        return this.#earmark.chargeUsage(request, { key: key ?? "" });
      case "commit":
        return this.#earmark.commitReservation(id, { usage: request });
      case "commit_response":
        return this.#earmark.commitReservation(id, request);
      case "commit_estimate":
        return this.#earmark.commitReservation(id, { usage: request, estimated: true });
      case "release":
        return this.#earmark.releaseReservation(id);
      case "correct":
        return this.#earmark.correctReservation(id, request, { key: key ?? "" });
      case "extend":
        return this.#earmark.extendReservation(id, request);
      case "reservation":
        return this.#earmark.getReservation(id);
      case "reservations":
        return this.#earmark.listReservations(request);
      case "budgets":
        return this.#earmark.listBudgets(request);
      case "entries":
        return this.#earmark.listEntries(request);
      case "prices":
        return this.#earmark.listPrices(request);
      case "add_prices":
        return this.#earmark.addPrices(request);
      case "explain_price":
        return this.#earmark.explainPrice(request);
      case "create_budget":
        return this.#earmark.createBudget(request);
      case "patch_budget":
        return this.#earmark.patchBudget(id, request);
      case "create_grant":
        return this.#earmark.createGrant(budget, request, { key: key ?? "" });
      case "grants":
        return this.#earmark.listGrants(budget, request);
      case "void_grant":
        return this.#earmark.voidGrant(budget, id, request);
      case "create_key":
        return this.#earmark.createKey(request);
      case "rotate_key":
        return this.#earmark.rotateKey(id, request);
      case "create_webhook":
        return this.#earmark.createWebhook(request);
      case "webhooks":
        return this.#earmark.listWebhooks(request);
      case "webhook":
        return this.#earmark.getWebhook(id);
      case "patch_webhook":
        return this.#earmark.patchWebhook(id, request);
      case "delete_webhook":
        return this.#earmark.deleteWebhook(id);
      case "rotate_webhook_secret":
        return this.#earmark.rotateWebhookSecret(id);
      case "test_webhook":
        return this.#earmark.testWebhook(id);
      case "deliveries":
        return this.#earmark.listDeliveries(id, request);
      case "replay_webhook":
        return this.#earmark.replayWebhook(id, request);
    }
    throw new Error(`there is no operation ${op}`);
  }

  async #guard({ key, request, work = {} }: Step): Promise<Result> {
    const caller = new AbortController();
    const left = new Error("the caller left");
    let worked = 0;
    let thrown: unknown;
    let result: Result = {};
    try {
      const guarded = await this.#earmark.guard(
        request,
        async ({ meter, signal }) => {
          worked++;
          await count(work, meter);
          if (work.caller_leaves) caller.abort(left);
          const error = signal.aborted ? signal.reason : work.fails && new Error(work.fails);
          thrown = work.nothing_sent ? new NothingSentError(error || undefined) : error;
          if (thrown) throw thrown;
        },
        { key, signal: caller.signal },
      );
      result = settledResult(guarded);
    } catch (error) {
      if (worked === 0) result["error"] = failure(error);
      else if (error === thrown && caller.signal.aborted) result["caller_left"] = true;
      else if (error === thrown) result["work_error"] = (error as Error).message;
      const unsettled = UnsettledError.of(error);
      if (unsettled) result["unsettled"] = unsettledResult(unsettled);
    }
    return { ...result, worked };
  }
}

const unsettledResult = (unsettled: UnsettledError): Result => ({
  reservation_id: unsettled.reservationId,
  verb: unsettled.verb,
  usage: unsettled.usage,
  on_expiry: unsettled.onExpiry,
  refused: unsettled.refused,
  code: unsettled.cause?.code,
  usage_unknown: unsettled.usageUnknown,
  message: unsettled.message,
});

async function count(work: Work, meter: Meter): Promise<void> {
  await sleep(work.takes_ms ?? 0);
  for (const { add, set } of work.meter ?? []) {
    if (add) meter.add(add);
    if (set) meter.set(set);
  }
}

const settledResult = (settled: Settled): Result => ({ accepted: settled.accepted, value: settled.reservation });

function failure(error: unknown): Result {
  if (error instanceof KeyInUseError) return { kind: "key_in_use", message: error.message };
  if (!(error instanceof EarmarkError)) return { kind: "other", message: String(error) };
  return {
    kind: "earmark",
    message: error.message,
    denied: isDenied(error),
    code: error.code,
    field: error.field,
    violations: error.violations,
    retryable: error.retryable,
    retry_at: error.retryAt?.toISOString().replace(".000Z", "Z"),
    retry_after_seconds: error.retryAfterSeconds,
    reservation: error.reservation,
    reservation_id: error.reservationId,
  };
}
