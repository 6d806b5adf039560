import { Readable } from "node:stream";
import OpenAI from "openai";
import { denialOf, Earmark, scopeOf, wrap } from "@earmark-dev/client";

const earmark = new Earmark();
const provider = new OpenAI();

/** app/users/[user]/chat/route.ts */
export async function POST(request: Request, { params }: { params: Promise<{ user: string }> }): Promise<Response> {
  const openai = wrap(provider, { earmark, scopes: [scopeOf("acme", (await params).user)], on_expiry: "commit" });
  const { prompt } = (await request.json()) as { prompt: unknown };
  try {
    const body = { model: "gpt-5", messages: [{ role: "user" as const, content: String(prompt) }], stream: true as const };
    const stream = await openai.chat.completions.create(body, { signal: request.signal }); // a reader who leaves stops the model
    const text = async function* () {
      for await (const chunk of stream) yield new TextEncoder().encode(chunk.choices[0]?.delta.content ?? "");
    };
    return new Response(Readable.toWeb(Readable.from(text())));
  } catch (error) {
    const denial = denialOf(error);
    if (denial) return Response.json({ error: "Your budget is used up.", retry_at: denial.retry_at }, { status: 402 });
    throw error;
  }
}
