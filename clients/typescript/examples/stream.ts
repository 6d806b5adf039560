import { Earmark, type GuardRequest } from "@earmark-dev/client";

const earmark = new Earmark();

export function stream(prompt: string, model: StreamingModel, signal?: AbortSignal): AsyncIterable<string> {
  const request: GuardRequest = { scopes: ["acme/ml/u1"], amounts: { tokens: 500 }, on_expiry: "commit" };
  return earmark.guardStream(
    request,
    async function* ({ meter, signal }) {
      meter.add({ tokens: new TextEncoder().encode(prompt).length }); // spent as soon as it is sent; a token has a byte or more
      for await (const chunk of model(prompt, signal)) {
        meter.add({ tokens: 1 });
        if (chunk.usedTokens !== undefined) meter.set({ tokens: chunk.usedTokens }); // the model's own count
        yield chunk.text;
      }
    },
    { signal },
  );
}

export type StreamingModel = (prompt: string, signal: AbortSignal) => AsyncIterable<{ text: string; usedTokens?: number }>;
