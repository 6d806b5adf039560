// A middleware for the language models of `ai` 5, 6 and 7. It needs no package: it uses the shapes that the versions share.
import { AdmittedCall, billsNothing, defaultMaxOutputTokens, isUnsent, requestFor, type ModelGuardOptions } from "./admitted.js";
import { Earmark } from "./client.js";
import { isDenied, type EarmarkError } from "./errors.js";
import { admitOrOpen, guardSettings } from "./guard.js";
import { failOpenOf } from "./late.js";
import { bytesPerToken, isCount, isObject, textBytes, whole, type Counts } from "./providers.js";

type Json = any;

/** A call of a language model. */
export interface ModelCall {
  modelId: string;
  /** As the AI SDK names it, such as `openai.chat`. */
  provider: string;
  stream: boolean;
  /** The LanguageModelV2, V3 or V4CallOptions. */
  params: any;
}

export interface EarmarkMiddlewareOptions extends ModelGuardOptions {
  /** Whose budgets pay; a function is asked for each call. */
  scopes: string[] | ((call: ModelCall) => string[] | Promise<string[]>);
  /** The upper bound of the input's tokens, where the bytes of the prompt are too few or far too many; see docs/typescript.md. */
  inputTokens?: (call: ModelCall) => number | Promise<number>;
  /** Names the call, such as by the run of a workflow and its activity: a second call with the same key does not run. */
  key?: (call: ModelCall) => string;
  /** What to throw in place of a denial, for a framework that would repeat it. */
  onDenied?: (denial: EarmarkError) => Error;
}

/** Fits the LanguageModelMiddleware of `ai` 5, 6 and 7, whose types differ. */
export interface EarmarkMiddleware {
  specificationVersion: any;
  transformParams(options: any): Promise<any>;
  wrapGenerate(options: any): Promise<any>;
  wrapStream(options: any): Promise<any>;
}

/**
 * Guards each call of a model that `wrapLanguageModel` wraps: it reserves before, limits `maxOutputTokens` to what is reserved, and
 * commits what the provider says was used, whatever ends the call. A denial is an EarmarkError (isDenied), which the AI SDK does not
 * repeat.
 */
export function earmarkMiddleware(options: EarmarkMiddlewareOptions): EarmarkMiddleware {
  const settings = (options.earmark ?? new Earmark())[guardSettings];
  const failOpen = failOpenOf(options.failOpen);

  const admit = async (call: ModelCall): Promise<AdmittedCall> => {
    const { modelId, params } = call;
    const scopes = typeof options.scopes === "function" ? await options.scopes(call) : options.scopes;
    const inputTokens = (await options.inputTokens?.(call)) ?? inputBytes(params);
    const outputTokens = mostOutputTokens(call);
    const request = requestFor(options, scopes, { api: "ai_sdk", model: modelId, inputTokens, outputTokens, answers: 1, serviceTier: tierOf(params) });
    const signal: AbortSignal | undefined = params.abortSignal;
    const key = options.key?.(call);
    try {
      return new AdmittedCall(await admitOrOpen(settings, request, { failOpen, ...(signal && { signal }), ...(key !== undefined && { key }) }), options.units);
    } catch (error) {
      throw isDenied(error) && options.onDenied ? options.onDenied(error) : error;
    }
  };

  /** Calls the model, and settles if it fails before its answer. */
  const answerOf = async (call: AdmittedCall, ask: () => PromiseLike<Json>): Promise<Json> => {
    try {
      return await ask();
    } catch (error) {
      if (isRefusal(error) || isUnsent(error)) call.nothingSent();
      await call.end(undefined, error);
      throw error;
    }
  };

  return {
    specificationVersion: "v4", // no version reads it
    async transformParams({ params }) {
      return { ...params, maxOutputTokens: params.maxOutputTokens ?? options.maxOutputTokens ?? defaultMaxOutputTokens };
    },
    async wrapGenerate({ doGenerate, params, model }) {
      const call = await admit(callOf(model, params, false));
      const result = await answerOf(call, doGenerate);
      const said = usageOf(result.usage, result.providerMetadata, model.provider);
      await call.end(said && { ...said, exact: true });
      return result;
    },
    async wrapStream({ doStream, params, model }) {
      const call = await admit(callOf(model, params, true));
      const result = await answerOf(call, doStream);
      return { ...result, stream: guarded(result.stream, call, new PartReader(params, model.provider), params.abortSignal) };
    },
  };
}

const callOf = (model: Json, params: Json, stream: boolean): ModelCall => ({ modelId: String(model.modelId), provider: String(model.provider), stream, params });

/**
 * Passes a stream on, and settles before its end. It reads without waiting for its reader: after `break` the AI SDK neither reads on nor
 * cancels, the provider writes and bills its whole answer, and this reads it to its end.
 */
function guarded(parts: ReadableStream<Json>, call: AdmittedCall, reader: PartReader, signal: AbortSignal | undefined): ReadableStream<Json> {
  const source = parts.getReader();
  const end = (error?: unknown): Promise<void> => {
    signal?.removeEventListener("abort", leave);
    return call.end(reader.counts(), error);
  };
  const leave = (): void => void end(signal?.reason);
  signal?.addEventListener("abort", leave, { once: true }); // the caller may never read again
  return new ReadableStream<Json>(
    {
      async pull(controller) {
        try {
          const { done, value } = await source.read();
          if (!done) {
            reader.push(value);
            return controller.enqueue(value);
          }
          await end();
          controller.close();
        } catch (error) {
          await end(error);
          controller.error(error);
        }
      },
      async cancel(reason) {
        await source.cancel(reason).catch(() => {});
        await end(reason ?? new Error("the reader left the stream"));
      },
    },
    { highWaterMark: Infinity },
  );
}

/** Reads the parts of a stream as they pass. */
class PartReader {
  #answered = false;
  #outputParts = 0;
  #outputBytes = 0;
  #inputsOfTools = new Set<string>(); // whose text came in pieces
  #finish: Json;

  constructor(
    private readonly params: Json,
    private readonly provider: string,
  ) {}

  push(part: Json): void {
    if (part?.type === "finish") this.#finish = part;
    else if (part?.type !== "stream-start" && part?.type !== "error") this.#answered = true;
    const text = this.#textOf(part);
    if (text === "") return;
    this.#outputParts++;
    this.#outputBytes += textBytes(text);
  }

  #textOf(part: Json): string {
    if (part?.type === "tool-input-delta") this.#inputsOfTools.add(part.id);
    if (typeof part?.delta === "string") return part.delta;
    const whole = part?.type === "tool-call" && !this.#inputsOfTools.has(part.toolCallId) ? part.input : undefined;
    return typeof whole === "string" ? whole : "";
  }

  /** What was used so far; undefined if the provider sent nothing. A stream that broke looks like one that ended, but for its reason. */
  counts(): Counts | undefined {
    const said = usageOf(this.#finish?.usage, this.#finish?.providerMetadata, this.provider);
    if (said && endedWell(this.#finish.finishReason)) return { ...said, exact: true };
    if (!this.#answered && !said) return undefined;
    const counted = Math.max(this.#outputParts, Math.ceil(this.#outputBytes / bytesPerToken));
    return {
      inputTokens: said?.inputTokens || Math.ceil(inputBytes(this.params) / bytesPerToken),
      outputTokens: Math.max(said?.outputTokens ?? 0, counted),
      exact: false,
    };
  }
}

/** Whether the provider itself gave the reason of the end. Without one `ai` 5 says `unknown`, 6 and 7 say `other` and have no raw reason. */
function endedWell(reason: Json): boolean {
  if (isObject(reason)) return reason["raw"] !== undefined && reason["unified"] !== "error";
  return reason !== "unknown" && reason !== "error";
}

/** The usage of a call; undefined if the provider did not say it, or in numbers that count nothing. */
function usageOf(usage: Json, metadata: Json, provider: string): Omit<Counts, "exact"> | undefined {
  if (!isObject(usage)) return undefined;
  if (isObject(usage["inputTokens"])) {
    const { inputTokens: input, outputTokens: output, raw } = usage as Json;
    if (!areCounts(input.total, output?.total)) return undefined;
    const inputTokens = whole(input.total);
    const total = whole(raw?.total_tokens ?? raw?.totalTokenCount); // has what some vendors count beside the output
    return { inputTokens, outputTokens: Math.max(whole(output?.total), total - inputTokens), usage, usageFormat: "ai_sdk_v6" };
  }
  return usageOfV5(usage, metadata, provider);
}

/** The AI SDK leaves a count out as undefined or, in `ai` 5, as NaN. */
function areCounts(...counts: unknown[]): boolean {
  const given = counts.filter((count) => typeof count === "number" && !Number.isNaN(count));
  return given.length > 0 && given.every(isCount);
}

/** In `ai` 5 it depends on the provider what `inputTokens` includes. */
function usageOfV5(usage: Json, metadata: Json, provider: string): Omit<Counts, "exact"> | undefined {
  if (!areCounts(usage.inputTokens, usage.outputTokens)) return undefined;
  const anthropic = metadata?.anthropic?.usage;
  if (isObject(anthropic)) {
    const raw = anthropic as Json;
    const inputTokens = whole(usage.inputTokens) + whole(raw.cache_read_input_tokens) + whole(raw.cache_creation_input_tokens);
    const said = { ...raw, input_tokens: whole(usage.inputTokens), output_tokens: whole(usage.outputTokens) };
    return { inputTokens, outputTokens: whole(usage.outputTokens), usage: said, usageFormat: "anthropic" };
  }
  const inputTokens = whole(usage.inputTokens);
  const outputTokens = Math.max(whole(usage.outputTokens), whole(usage.totalTokens) - inputTokens);
  // Elsewhere the cached tokens may be beside the input: then they are part of the total, and cost as much as new ones.
  const cached = /^(openai|azure|google)\b/.test(provider) ? Math.min(whole(usage.cachedInputTokens), inputTokens) : 0;
  const said = { prompt_tokens: inputTokens, completion_tokens: outputTokens, total_tokens: inputTokens + outputTokens, prompt_tokens_details: { cached_tokens: cached } };
  return { inputTokens, outputTokens, usage: said, usageFormat: "openai_chat" };
}

/** At least as many as the input has tokens: the bytes of its JSON. It does not know files that the prompt only names. */
function inputBytes({ prompt, tools, toolChoice, responseFormat }: Json): number {
  const text = JSON.stringify({ prompt, tools, toolChoice, responseFormat }, function (this: Json, key, value) {
    const own = this[key]; // before a toJSON
    return own instanceof Uint8Array ? "x".repeat(Math.ceil(own.length / 3) * 4) : value;
  });
  return textBytes(text);
}

/** What Anthropic's packages take for thinking where nothing else is said. */
const defaultThinkingTokens = 1_024;
/** The largest output of the models of Anthropic for which `reasoning` becomes a budget, and what a model that the package does not know gets. */
const mostThinkingOutputTokens = 64_000;
const unknownModelOutputTokens = 4_096;

/** The output that the provider is asked for: Anthropic's packages add thinking to maxOutputTokens. */
function mostOutputTokens({ params, provider }: ModelCall): number {
  const limit: number = params.maxOutputTokens;
  const { anthropic, bedrock } = params.providerOptions ?? {};
  const thinking = anthropic?.thinking ?? bedrock?.reasoningConfig;
  if (thinking?.type === "enabled") return limit + (whole(thinking.budgetTokens) || defaultThinkingTokens);
  const decidedByPackage = thinking === undefined && ![undefined, "none", "provider-default"].includes(params.reasoning) && /anthropic/i.test(provider);
  return decidedByPackage ? Math.max(limit + unknownModelOutputTokens, mostThinkingOutputTokens) : limit;
}

function tierOf(params: Json): string | undefined {
  const tier = params.providerOptions?.openai?.serviceTier;
  return ["flex", "priority"].includes(tier) ? tier : undefined;
}

/** Errors of the AI SDK before anything is sent. */
const unsentErrors = ["AI_InvalidArgumentError", "AI_InvalidPromptError", "AI_LoadAPIKeyError", "AI_LoadSettingError", "AI_NoSuchModelError", "AI_UnsupportedFunctionalityError"];

/** Whether the error says that the provider bills nothing. */
function isRefusal(error: Json): boolean {
  if (typeof error?.statusCode === "number") return billsNothing(error.statusCode);
  return unsentErrors.includes(error?.name);
}
