import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";

/** How the fake provider answers. */
export interface Behaviour {
  /** Closes the connection after this many events, or before the answer. */
  cutAfter?: number;
  /** Ends the answer as if it were whole, after this many events. */
  endAfter?: number;
  /** Sends no more after this many events, and keeps the connection. */
  hangAfter?: number;
  status?: number;
  headers?: Record<string, string>;
  /** In place of the answer. */
  raw?: string;
  /** Each character of raw is a byte. */
  bytes?: boolean;
  /** Waits between events, so that a reader can leave. */
  slow?: boolean;
  /** No usage in the answer. */
  noUsage?: boolean;
}

/** A provider of each API: it answers "one two three", and counts what it bills. */
export class FakeProvider {
  readonly bodies: string[] = [];
  readonly billed: number[] = []; // total tokens of each call
  behaviour: Behaviour = {};
  /** Of the next calls, before behaviour. */
  readonly next: Behaviour[] = [];
  readonly #server: Server;

  private constructor() {
    this.#server = createServer((request, response) => void this.#answer(request, response).catch(() => response.destroy()));
  }

  static async start(): Promise<FakeProvider> {
    const provider = new FakeProvider();
    await new Promise<void>((resolve) => provider.#server.listen(0, "127.0.0.1", resolve));
    return provider;
  }

  get url(): string {
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  stop(): Promise<void> {
    this.#server.closeAllConnections();
    return new Promise((resolve) => this.#server.close(() => resolve()));
  }

  async #answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    let text = "";
    for await (const chunk of request) text += chunk;
    this.bodies.push(text);
    const { status = 200, headers = {}, raw, bytes, cutAfter, endAfter, hangAfter, slow, noUsage } = this.next.shift() ?? this.behaviour;
    if (status !== 200) {
      response.writeHead(status, { "Content-Type": "application/json", ...headers }).end('{"error":{"message":"no","type":"provider"}}');
      return;
    }
    const path = new URL(request.url ?? "", "http://x").pathname;
    const body = text === "" ? {} : JSON.parse(text);
    const { events, whole, tokens } = answerOf(path, body, noUsage === true);
    const given = raw === undefined ? undefined : Buffer.from(raw, bytes ? "latin1" : "utf8");
    this.billed.push(tokens);
    if (!events) {
      if (cutAfter !== undefined) response.destroy();
      else response.writeHead(200, { "Content-Type": "application/json" }).end(given ?? JSON.stringify(whole));
      return;
    }
    response.writeHead(200, { "Content-Type": "text/event-stream; charset=utf-8" });
    for (const [i, event] of (given === undefined ? events.map((event) => Buffer.from(event)) : [given]).entries()) {
      if (i === endAfter) break;
      if (i === hangAfter) return;
      if (i === cutAfter) {
        response.socket?.end(); // what was written arrives
        return;
      }
      // In two pieces, which come apart.
      response.write(event.subarray(0, 7));
      await new Promise((resolve) => setTimeout(resolve, slow ? 20 : 0));
      response.write(event.subarray(7));
    }
    response.end();
  }
}

const words = ["one", " two", " three ✓"];
const input = 11;
const output = 7;

function answerOf(path: string, body: any, noUsage: boolean): { events?: string[]; whole?: object; tokens: number } {
  const data = (event: object | string) => `data: ${typeof event === "string" ? event : JSON.stringify(event)}\n\n`;
  const named = (event: { type: string }) => `event: ${event.type}\n${data(event)}`;
  const tokens = input + output;
  if (path.endsWith("/chat/completions")) {
    const base = { id: "c1", object: "chat.completion.chunk", created: 1, model: body.model };
    const usage = { prompt_tokens: input, completion_tokens: output, total_tokens: tokens };
    if (!body.stream) {
      const message = { role: "assistant", content: words.join("") };
      return { whole: { ...base, object: "chat.completion", choices: [{ index: 0, message, finish_reason: "stop" }], ...(!noUsage && { usage }) }, tokens };
    }
    const chunks = words.map((content) => ({ ...base, choices: [{ index: 0, delta: { content }, finish_reason: null }] }));
    const last = { ...base, choices: [{ index: 0, delta: {}, finish_reason: "stop" }] };
    const asked = body.stream_options?.include_usage && !noUsage;
    return { events: [...chunks, last, ...(asked ? [{ ...base, choices: [], usage }] : [])].map(data).concat(data("[DONE]")), tokens };
  }
  if (path.endsWith("/responses")) {
    const response = { id: "r1", object: "response", status: "completed", model: body.model, created_at: 1, output: [{ type: "message", id: "i", role: "assistant", status: "completed", content: [{ type: "output_text", text: words.join(""), annotations: [] }] }], usage: { input_tokens: input, output_tokens: output, total_tokens: tokens } };
    if (!body.stream) return { whole: response, tokens };
    const deltas = words.map((delta) => ({ type: "response.output_text.delta", delta, output_index: 0, content_index: 0, item_id: "i" }));
    return { events: [{ type: "response.created", response: { ...response, status: "in_progress", usage: null } }, ...deltas, { type: "response.completed", response }].map(named), tokens };
  }
  if (path.endsWith("/messages")) {
    const usage = { input_tokens: 4, cache_read_input_tokens: 5, cache_creation_input_tokens: 2, output_tokens: output };
    const message = { id: "m1", type: "message", role: "assistant", model: body.model, content: [{ type: "text", text: words.join("") }], stop_reason: "end_turn", usage };
    if (!body.stream) return { whole: message, tokens };
    const deltas = words.map((text) => ({ type: "content_block_delta", index: 0, delta: { type: "text_delta", text } }));
    return {
      events: [
        { type: "message_start", message: { ...message, content: [], stop_reason: null, usage: { ...usage, output_tokens: 1 } } },
        { type: "content_block_start", index: 0, content_block: { type: "text", text: "" } },
        ...deltas,
        { type: "content_block_stop", index: 0 },
        { type: "message_delta", delta: { stop_reason: "end_turn" }, usage: { output_tokens: output } },
        { type: "message_stop" },
      ].map(named),
      tokens,
    };
  }
  if (path.includes("enerateContent")) {
    const usageMetadata = { promptTokenCount: 8, toolUsePromptTokenCount: 3, candidatesTokenCount: 4, thoughtsTokenCount: 3, totalTokenCount: tokens };
    const part = (text: string, more: object) => ({ candidates: [{ content: { role: "model", parts: [{ text }] }, ...more }], usageMetadata: { ...usageMetadata, candidatesTokenCount: 1, totalTokenCount: 12 } });
    const last = { candidates: [{ content: { role: "model", parts: [{ text: words[2] }] }, finishReason: "STOP" }], usageMetadata };
    if (!path.includes(":stream")) return { whole: last, tokens };
    return { events: [part(words[0]!, {}), part(words[1]!, {}), last].map((event) => data(event).replaceAll("\n", "\r\n")), tokens };
  }
  if (path.endsWith("/embeddings")) return { whole: { object: "list", data: [{ object: "embedding", index: 0, embedding: [0.5] }], usage: { prompt_tokens: input, total_tokens: input } }, tokens: input };
  return { whole: { ok: true }, tokens: 0 };
}
