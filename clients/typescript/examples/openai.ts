import OpenAI from "openai";
import { denialOf, wrap } from "@earmark-dev/client";

const openai = wrap(new OpenAI(), { scopes: ["acme/ml"], on_expiry: "commit" }); // the one line that changes

export async function answer(prompt: string): Promise<string> {
  try {
    const stream = await openai.chat.completions.create({ model: "gpt-5", messages: [{ role: "user", content: prompt }], stream: true });
    let text = "";
    for await (const chunk of stream) text += chunk.choices[0]?.delta.content ?? "";
    return text;
  } catch (error) {
    if (denialOf(error)) return "Your budget is used up.";
    throw error;
  }
}
