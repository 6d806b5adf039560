// What calls of AI providers ask for, and what their answers say was used.

/** The APIs that a guarded fetch knows, by the path of their calls. */
export type ProviderApi = "openai_chat" | "openai_completions" | "openai_responses" | "openai_embeddings" | "anthropic_messages" | "gemini_generate";

/** A call of a model. */
export interface ProviderCall {
  api: ProviderApi;
  url: URL;
  model: string;
  stream: boolean;
  /** At least as many as the input has: the bytes of the request. It does not know files and texts that the request only names. */
  inputTokens: number;
  /** The limit that the request sets for each answer; undefined if it sets none. */
  maxOutputTokens: number | undefined;
  /** How many answers it asks for. */
  answers: number;
  /** The service tier that it asks for, if that has prices of its own. */
  serviceTier: string | undefined;
}

/** What was used. exact: the provider said so, at the end of its answer. */
export interface Counts {
  inputTokens: number;
  outputTokens: number;
  exact: boolean;
  /** 1. */
  requests?: number;
  /** The provider's own object, and what it is; without that Earmark looks at its shape. */
  usage?: object;
  usageFormat?: string;
}

/** Text has about this many bytes for each token, where nobody counts them. */
export const bytesPerToken = 4;

type Json = any;

export const textBytes = (text: string): number => new TextEncoder().encode(text).length;

/** An estimate of the input, for a stream that broke before the provider said what it read. */
export const estimatedInputTokens = (call: ProviderCall): number => Math.ceil(call.inputTokens / bytesPerToken);

const paths: [RegExp, ProviderApi][] = [
  [/\/chat\/completions$/, "openai_chat"],
  [/\/completions$/, "openai_completions"],
  [/\/responses$/, "openai_responses"],
  [/\/embeddings$/, "openai_embeddings"],
  [/\/v1\/messages$/, "anthropic_messages"],
  [/:(stream)?[gG]enerateContent$/, "gemini_generate"],
];

/** Calls that bill nothing. */
const free = [/\/count_tokens$/, /:countTokens$/, /\/input_tokens$/];

export const isFree = (method: string, url: URL): boolean => ["GET", "HEAD", "DELETE", "OPTIONS"].includes(method) || free.some((path) => path.test(url.pathname));

export function apiOf(method: string, url: URL): ProviderApi | undefined {
  if (method !== "POST") return undefined;
  return paths.find(([path]) => path.test(url.pathname))?.[1];
}

/** Gemini names the model in the path, and Azure a deployment. */
function modelOf(gemini: boolean, named: unknown, url: URL): string {
  if (!gemini && typeof named === "string" && named !== "") return named;
  const [, inPath = ""] = (gemini ? /([^/]+):[^/:]*$/ : /\/deployments\/([^/]+)\//).exec(url.pathname) ?? [];
  try {
    return decodeURIComponent(inPath);
  } catch {
    return inPath;
  }
}

/** Reads a call; undefined if the body is not the JSON of one. */
export function callOf(api: ProviderApi, url: URL, text: string): ProviderCall | undefined {
  let body: Json;
  try {
    body = JSON.parse(text);
  } catch {
    return undefined;
  }
  if (typeof body !== "object" || body === null || Array.isArray(body)) return undefined;
  const gemini = api === "gemini_generate";
  const perAnswer = gemini ? body.generationConfig?.maxOutputTokens : (body.max_completion_tokens ?? body.max_output_tokens ?? body.max_tokens);
  const answers = Math.max(1, whole(gemini ? body.generationConfig?.candidateCount : Math.max(whole(body.n), whole(body.best_of))));
  return {
    api,
    url,
    model: modelOf(gemini, body.model, url),
    stream: gemini ? /:stream/.test(url.pathname) : body.stream === true,
    inputTokens: textBytes(text),
    maxOutputTokens: typeof perAnswer === "number" ? perAnswer : undefined,
    answers,
    serviceTier: ["flex", "priority"].includes(body.service_tier) ? body.service_tier : undefined,
  };
}

/**
 * Asks for the usage at the end of a chat stream, which OpenAI and compatible servers send only on request. It returns the new body
 * with every other byte as it was; undefined if the caller asks for it already.
 */
export function askForUsage(api: ProviderApi, text: string): string | undefined {
  if (api !== "openai_chat" && api !== "openai_completions") return undefined;
  const body: Json = JSON.parse(text);
  if (body.stream !== true || body.stream_options?.include_usage === true) return undefined;
  if (body.stream_options) return JSON.stringify({ ...body, stream_options: { ...body.stream_options, include_usage: true } });
  const withoutNull = body.stream_options === null ? text.replace(/"stream_options"\s*:\s*null\s*,?/, "") : text;
  return withoutNull.replace("{", '{"stream_options":{"include_usage":true},');
}

/** Whether an event is the extra one that askForUsage brings. */
export function isUsageEvent(data: string): boolean {
  const event = parse(data);
  return event !== undefined && isObject(event.usage) && Array.isArray(event.choices) && event.choices.length === 0;
}

/** Reads the usage of an answer that is not a stream of events; undefined if it has none that can be read. */
export function countsOf(api: ProviderApi, text: string): Counts | undefined {
  const body = parse(text);
  const last = Array.isArray(body) ? body.at(-1) : body; // Gemini streams an array where nobody asks for events
  const usage = last?.usage ?? last?.usageMetadata;
  const said = isObject(usage) ? read(api, usage) : undefined;
  return said && { ...said, exact: true, usage: withTier(usage, tierOf(last)) };
}

/** The service tier that an answer or an event names; OpenAI writes it beside the usage. */
function tierOf(said: Json): string | undefined {
  const tier = said.service_tier ?? said.message?.service_tier ?? said.response?.service_tier;
  return typeof tier === "string" && tier !== "" ? tier : undefined;
}

/** The usage, together with the tier that decides its price, if it does not name the tier itself. */
const withTier = (usage: Json, tier: string | undefined): object => (tier === undefined || isObject(usage) && typeof usage.service_tier === "string" ? usage : { service_tier: tier, usage });

/** Reads a stream as it passes. */
export class StreamReader {
  #usage: Json;
  #tier: string | undefined;
  #ended = false;
  readonly #finished = new Set<number>(); // answers that have a reason for their end
  #events = 0;
  #outputBytes = 0;
  #outputEvents = 0;

  constructor(private readonly call: ProviderCall) {}

  push(data: string): void {
    if (data === "[DONE]") {
      this.#ended = true;
      return;
    }
    const event = parse(data);
    if (!isObject(event)) return;
    this.#events++;
    const output = outputText(event);
    if (output !== "") {
      this.#outputEvents++;
      this.#outputBytes += textBytes(output);
    }
    const usage = event.usage ?? event.usageMetadata ?? event.message?.usage ?? event.response?.usage ?? event.x_groq?.usage;
    if (isObject(usage)) this.#usage = { ...this.#usage, ...present(usage) };
    this.#tier = tierOf(event) ?? this.#tier;
    for (const answer of [...list(event.choices), ...list(event.candidates)]) {
      if (answer?.finish_reason || answer?.finishReason) this.#finished.add(whole(answer.index));
    }
    this.#ended ||= isEnd(event) || this.#finished.size >= this.call.answers;
  }

  /** What was used so far; undefined if the stream had no event. Without the provider's last word it is an estimate. */
  counts(): Counts | undefined {
    if (this.#events === 0) return undefined;
    const said = this.#usage && read(this.call.api, this.#usage);
    if (said && this.#ended) return { ...said, exact: true, usage: withTier(this.#usage, this.#tier) };
    const counted = Math.max(this.#outputEvents, Math.ceil(this.#outputBytes / bytesPerToken));
    return {
      inputTokens: said?.inputTokens || estimatedInputTokens(this.call),
      outputTokens: Math.max(said?.outputTokens ?? 0, counted),
      exact: false,
    };
  }
}

/**
 * The provider's usage as input and output. What a total has beyond both, such as reasoning, is output. Undefined: there is no count, or
 * one that is no whole number from 0.
 */
function read(api: ProviderApi, usage: Json): { inputTokens: number; outputTokens: number } | undefined {
  let known = false;
  let malformed = false;
  const sum = (...values: Json[]): number => {
    const given = values.filter((value) => value !== undefined && value !== null);
    known ||= given.length > 0;
    malformed ||= !given.every(isCount);
    return given.reduce((total, value) => total + whole(value), 0);
  };
  let input: number;
  let output: number;
  if (api === "gemini_generate") {
    input = sum(usage.promptTokenCount, usage.toolUsePromptTokenCount);
    output = sum(usage.candidatesTokenCount, usage.thoughtsTokenCount);
  } else if (api === "anthropic_messages") {
    input = sum(usage.input_tokens, usage.cache_read_input_tokens, usage.cache_creation_input_tokens);
    output = sum(usage.output_tokens);
  } else {
    input = sum(usage.prompt_tokens ?? usage.input_tokens);
    output = sum(usage.completion_tokens ?? usage.output_tokens);
  }
  const total = sum(usage.total_tokens ?? usage.totalTokenCount);
  return known && !malformed ? { inputTokens: input, outputTokens: Math.max(output, total - input) } : undefined;
}

function isEnd(event: Json): boolean {
  if (["message_stop", "response.completed", "response.incomplete", "response.failed"].includes(event.type)) return true;
  return isObject(event.promptFeedback) && Boolean(event.promptFeedback.blockReason);
}

/** The text that an event adds to the answer, of any API. */
function outputText(event: Json): string {
  const parts: unknown[] = [];
  for (const choice of list(event.choices)) parts.push(choice?.text, choice?.delta?.content, choice?.delta?.reasoning_content, choice?.delta?.refusal, ...list(choice?.delta?.tool_calls).map((call) => call?.function?.arguments));
  for (const candidate of list(event.candidates)) for (const part of list(candidate?.content?.parts)) parts.push(part?.text, part?.functionCall && JSON.stringify(part.functionCall));
  if (typeof event.delta === "string") parts.push(event.delta); // Responses
  else if (event.type === "content_block_delta") parts.push(event.delta?.text, event.delta?.thinking, event.delta?.partial_json);
  return parts.filter((part) => typeof part === "string").join("");
}

export const isObject = (value: unknown): value is Record<string, Json> => typeof value === "object" && value !== null && !Array.isArray(value);
const list = (value: unknown): Json[] => (Array.isArray(value) ? value : []);
export const isCount = (value: unknown): value is number => typeof value === "number" && Number.isSafeInteger(value) && value >= 0;
export const whole = (value: unknown): number => (isCount(value) ? value : 0);
const present = (usage: object): object => Object.fromEntries(Object.entries(usage).filter(([, value]) => value !== null));

function parse(text: string): Json {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
