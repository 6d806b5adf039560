import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { ReadableStream } from "node:stream/web";
import { describe, test } from "node:test";

import * as api from "@earmark-dev/client";
import { Earmark, EarmarkError, eachItem, isDenied, NothingSentError, scopeIds, scopeOf, UnsettledError, type GuardRequest, type Run } from "@earmark-dev/client";
import { FakeEarmark, problem } from "./fake.js";

const request: GuardRequest = { scopes: ["acme"], amounts: { tokens: 100 }, on_expiry: "commit" };
const isInvalid = (field: string | undefined) => (error: unknown) => error instanceof EarmarkError && error.code === "invalid_request" && error.field === field;

describe("Earmark", () => {
  // What has no method: Prometheus reads one, and the others are for Temporal's UI and for the document's readers.
  const without = ["metrics", "decodePayloads", "allowDecoding", "document"];

  test("has a method for every call of the API", () => {
    const document = readFileSync(new URL("../../../../api/openapi.yaml", import.meta.url), "utf8");
    const operations = [...document.matchAll(/operationId: (\w+)/g)].map(([, name]) => name!);
    assert.ok(operations.length > 20);
    const missing = operations.filter((name) => !without.includes(name) && !(name in Earmark.prototype));
    assert.deepEqual(missing, []);
  });

  test("sends the key in the header alone, and never tells it", async () => {
    const fake = new FakeEarmark();
    const key = "emk_abcdefgh0129_secret";
    fake.intercept = () => problem(401, "unauthenticated");
    await assert.rejects(fake.client({ apiKey: key }).whoami(), (error: Error) => !`${error.stack}`.includes(key));
    assert.equal(fake.calls[0]?.authorization, `Bearer ${key}`);
    process.env["EARMARK_API_KEY"] = "emk_from_environment";
    await assert.rejects(fake.client().whoami());
    delete process.env["EARMARK_API_KEY"];
    assert.equal(fake.calls[1]?.authorization, "Bearer emk_from_environment");
  });

  test("refuses what is no base URL, and keeps its password", () => {
    for (const baseUrl of ["127.0.0.1:8080", "ftp://x", "http://x?y=1", "http://x#y", "http://user:secret@x"]) {
      assert.throws(() => new Earmark({ baseUrl }), (error: Error) => isInvalid(undefined)(error) && !error.message.includes("secret"), baseUrl);
    }
  });

  test("does not send a number that JSON would change", async () => {
    const fake = new FakeEarmark();
    const earmark = fake.client();
    for (const amount of [2 ** 53, 0.5, NaN, Infinity]) {
      await assert.rejects(earmark.reserve({ ...request, amounts: { tokens: amount } }), isInvalid("amounts.tokens"));
      await assert.rejects(earmark.commitReservation("rsv_1", { usage: { tokens: amount } }), isInvalid("usage.tokens"));
      await assert.rejects(earmark.chargeUsage({ scopes: ["acme"], amounts: { tokens: amount } }, { key: "k" }), isInvalid("amounts.tokens"));
    }
    assert.deepEqual(fake.verbs, []);
  });

  test("does not follow a redirect", async () => {
    const fake = new FakeEarmark();
    fake.intercept = () => new Response(null, { status: 307, headers: { Location: "http://elsewhere.test/" } });
    await assert.rejects(fake.client().createBudget({ scope: "acme", unit: "tokens", limit: 5 }), (error) => error instanceof EarmarkError && error.code === "internal");
    assert.equal(fake.calls.length, 1);
  });

  test("ends a call with its signal", async () => {
    const fake = new FakeEarmark();
    const reason = new Error("enough");
    fake.intercept = () => problem(503, "unavailable");
    const caller = new AbortController();
    const call = fake.client().getReservation("rsv_1", { signal: caller.signal });
    caller.abort(reason);
    await assert.rejects(call, reason);
    assert.equal(fake.calls.length, 1);
  });

  test("gives up an attempt after its time", async () => {
    const earmark = new Earmark({
      baseUrl: "http://earmark.test",
      timeoutMs: 20,
      maxAttempts: 2,
      fetch: (_, init) => new Promise((_, reject) => init?.signal?.addEventListener("abort", () => reject(init.signal?.reason))),
    });
    await assert.rejects(earmark.whoami(), /Earmark did not answer: there was no answer in time/);
  });

  test("lists page by page", async () => {
    const pages: Record<string, api.Page<number>> = { "": { data: [1, 2], next_cursor: "b" }, b: { data: [3], next_cursor: "" } };
    const all: number[] = [];
    for await (const item of eachItem(async (cursor) => pages[cursor]!)) all.push(item);
    assert.deepEqual(all, [1, 2, 3]);
  });

  test("has the checks of a service that is not ready", async () => {
    const fake = new FakeEarmark();
    fake.intercept = () => problem(503, "unavailable", { checks: { postgres: { status: "down", detail: "refused" } } });
    await assert.rejects(fake.client().ready(), (error) => error instanceof EarmarkError && error.checks?.postgres?.status === "down");
  });
});

describe("guard", () => {
  test("returns the function's value and the settlement", async () => {
    const fake = new FakeEarmark();
    const { value, reservation } = await fake.client().guard(request, ({ meter }) => {
      meter.add({ tokens: 40 });
      return "hello";
    });
    assert.equal(value, "hello");
    assert.deepEqual(reservation?.usage, { tokens: 40 });
  });

  test("keeps the value of a run that it cannot settle", async () => {
    const fake = new FakeEarmark();
    fake.intercept = (verb) => (verb === "commit" ? problem(409, "already_settled") : undefined);
    const run = fake.client().guard(request, ({ meter }) => {
      meter.set({ tokens: 40 });
      return "hello";
    });
    await assert.rejects(run, (error) => error instanceof UnsettledError && error.value === "hello" && error.refused);
    assert.equal(fake.unsettled.length, 1);
    assert.deepEqual(fake.logged, ["reservation not settled"]);
  });

  test("survives an onUnsettled that throws", async () => {
    const fake = new FakeEarmark();
    const onUnsettled = () => {
      throw new Error("the disk is full");
    };
    await assert.rejects(fake.client({ onUnsettled }).guard(request, () => {}), (error) => error instanceof UnsettledError && error.usageUnknown);
    assert.deepEqual(fake.logged, ["reservation not settled", "onUnsettled failed"]);
  });

  test("releases what is admitted after the caller has left", async () => {
    const fake = new FakeEarmark();
    const caller = new AbortController();
    let admit = (_: undefined) => {};
    fake.intercept = (verb) => (verb === "reserve" ? (new Promise((resolve) => (admit = resolve)) as any) : undefined);
    const run = fake.client().guard(request, () => assert.fail("the function ran"), { signal: caller.signal });
    caller.abort(new Error("gone"));
    await assert.rejects(run, /gone/);
    admit(undefined);
    await until(() => fake.verbs.includes("release"));
    assert.deepEqual(fake.verbs, ["reserve", "release"]);

    await assert.rejects(fake.client().guard(request, () => {}, { signal: caller.signal }), /gone/);
    assert.equal(fake.calls.length, 2, "a caller who left before asks for nothing");
  });

  test("finds a NothingSentError within other errors", async () => {
    const fake = new FakeEarmark();
    const error = new Error("wrapped", { cause: new NothingSentError() });
    await assert.rejects(fake.client().guard(request, () => Promise.reject(error)), error);
    assert.deepEqual(fake.verbs, ["reserve", "release"]);
  });

  test("says a denial", async () => {
    const fake = new FakeEarmark();
    fake.intercept = () => problem(402, "budget_exceeded", { violations: [{ budget_id: "bud_1", available: 5 }] });
    await assert.rejects(fake.client().guard(request, () => {}), (error) => isDenied(error) && error.violations[0]?.available === 5);
  });
});

describe("guardStream", () => {
  async function* three({ meter }: Run) {
    for (const chunk of ["a", "b", "c"]) {
      meter.add({ tokens: 1 });
      yield chunk;
    }
  }
  const usage = (fake: FakeEarmark) => fake.calls.find(({ verb }) => verb === "commit")?.body.usage.tokens;

  test("is settled when it ends, before its reader learns of it", async () => {
    const fake = new FakeEarmark();
    const stream = fake.client().guardStream(request, three);
    assert.deepEqual(fake.verbs, [], "nothing is reserved before somebody reads");
    const chunks = [];
    for await (const chunk of stream) chunks.push(chunk);
    assert.deepEqual(chunks, ["a", "b", "c"]);
    assert.equal(usage(fake), 3);
    assert.deepEqual(await stream.next(), { done: true, value: undefined });
    assert.deepEqual(fake.verbs, ["reserve", "commit"]);
  });

  test("charges what was used when its reader leaves", async () => {
    const fake = new FakeEarmark();
    let closed = false;
    const open = async function* (run: Run) {
      try {
        yield* three(run);
      } finally {
        closed = true;
      }
    };
    for await (const chunk of fake.client().guardStream(request, open)) if (chunk === "b") break;
    assert.equal(usage(fake), 2);
    assert.ok(closed, "the source is closed too");
  });

  test("charges what was used when a response is cancelled", async () => {
    const fake = new FakeEarmark();
    const body = (ReadableStream as unknown as { from<T>(source: AsyncIterable<T>): ReadableStream<T> }).from(fake.client().guardStream(request, three));
    const reader = body.getReader();
    await reader.read();
    await reader.cancel();
    assert.ok(usage(fake) >= 1);
  });

  test("charges what was used when the source fails", async () => {
    const fake = new FakeEarmark();
    const broken = new Error("the stream broke");
    const stream = fake.client().guardStream(request, async function* (run) {
      yield* three(run);
      throw broken;
    });
    await assert.rejects(drain(stream), broken);
    assert.equal(usage(fake), 3);
  });

  test("charges what was used when the caller leaves and nobody reads", async () => {
    const fake = new FakeEarmark();
    const caller = new AbortController();
    const stream = fake.client().guardStream(request, three, { signal: caller.signal });
    await stream.next();
    caller.abort(new Error("gone"));
    await until(() => fake.verbs.includes("commit"));
    assert.equal(usage(fake), 1);
    await assert.rejects(stream.next(), /gone/);
    assert.deepEqual(fake.verbs, ["reserve", "commit"]);
  });

  test("charges what was used when the caller leaves while it is read", async () => {
    const fake = new FakeEarmark();
    const caller = new AbortController();
    const stream = fake.client().guardStream(
      request,
      async function* ({ meter, signal }) {
        meter.add({ tokens: 9 });
        await new Promise((_, reject) => signal.addEventListener("abort", () => reject(signal.reason)));
        yield "never";
      },
      { signal: caller.signal },
    );
    const reading = stream.next();
    await until(() => fake.verbs.includes("reserve"));
    await new Promise((resolve) => setImmediate(resolve));
    caller.abort(new Error("gone"));
    await assert.rejects(reading, /gone/);
    await until(() => fake.verbs.includes("commit"));
    assert.equal(usage(fake), 9);
  });

  test("releases if the source says that nothing was sent", async () => {
    const fake = new FakeEarmark();
    await assert.rejects(drain(fake.client().guardStream(request, () => Promise.reject(new NothingSentError("no such model")))), NothingSentError);
    assert.deepEqual(fake.verbs, ["reserve", "release"]);
  });

  test("does not call an unsettled stream a success", async () => {
    const fake = new FakeEarmark();
    fake.intercept = (verb) => (verb === "commit" ? problem(409, "overage_rejected") : undefined);
    await assert.rejects(drain(fake.client().guardStream(request, three)), (error) => error instanceof UnsettledError && error.refused);
  });

  test("does not open a denied source", async () => {
    const fake = new FakeEarmark();
    fake.intercept = () => problem(402, "budget_exceeded");
    await assert.rejects(drain(fake.client().guardStream(request, () => assert.fail("it was opened"))), isDenied);
  });
});

describe("scopes", () => {
  const long = "i".repeat(64);
  for (const [id, segment] of [["u1", "u1"], ["a@b.com", "x--a_40b.com"], ["x--u", "x--x--u"], ["auth0|12", "x--auth0_7C12"], ["ü", "x--_C3_BC"], ["a_b c", "x--a_5Fb_20c"]] as const) {
    test(`${id} is ${segment}`, () => {
      assert.equal(scopeOf("acme", id), `acme/${segment}`);
      assert.deepEqual(scopeIds(`acme/${segment}`), ["acme", id]);
    });
  }
  test("what fits into no scope is refused", () => {
    for (const ids of [[], ["", "a"], [long], Array(9).fill("a"), ["\ud800"]]) assert.throws(() => scopeOf(...ids), isInvalid("scopes"));
  });
});

describe("the package", () => {
  test("loads as ESM and as CommonJS", async () => {
    const root = new URL("../../package.json", import.meta.url);
    const common = createRequire(root)("@earmark-dev/client");
    const names = Object.keys(api).sort();
    assert.deepEqual(Object.keys(common).filter((name) => name !== "__esModule").sort(), names);
    const modern = await import("@earmark-dev/client" as string);
    assert.deepEqual(Object.keys(modern).sort(), names);
  });

  test("has no runtime dependency", () => {
    const manifest = JSON.parse(readFileSync(new URL("../../package.json", import.meta.url), "utf8"));
    assert.equal(manifest.dependencies, undefined);
  });
});

async function drain(stream: AsyncIterable<unknown>): Promise<void> {
  for await (const _ of stream);
}

async function until(condition: () => boolean): Promise<void> {
  while (!condition()) await new Promise((resolve) => setImmediate(resolve));
}
