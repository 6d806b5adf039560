import express from "express";
import OpenAI from "openai";
import { denialOf, Earmark, scopeOf, wrap } from "@earmark-dev/client";

const earmark = new Earmark();
const provider = new OpenAI();
export const app = express();

app.post("/users/:user/chat", express.json(), async (request, response, next) => {
  const openai = wrap(provider, { earmark, scopes: [scopeOf("acme", request.params.user)], on_expiry: "commit" });
  const caller = new AbortController();
  response.on("close", () => caller.abort()); // a reader who leaves stops the model
  try {
    const body = { model: "gpt-5", messages: [{ role: "user" as const, content: String(request.body.prompt) }], stream: true as const };
    const stream = await openai.chat.completions.create(body, { signal: caller.signal });
    for await (const chunk of stream) response.write(chunk.choices[0]?.delta.content ?? "");
    response.end();
  } catch (error) {
    const denial = denialOf(error);
    if (denial) response.status(402).json({ error: "Your budget is used up.", retry_at: denial.retry_at });
    else next(error);
  }
});
