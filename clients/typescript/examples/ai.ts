import { openai } from "@ai-sdk/openai";
import { isDenied } from "@earmark-dev/client";
import { earmarkMiddleware } from "@earmark-dev/client/ai";
import { generateText, wrapLanguageModel } from "ai";

const middleware = earmarkMiddleware({ scopes: ["acme/ml"], on_expiry: "commit" });
const model = wrapLanguageModel({ model: openai("gpt-5"), middleware }); // the one line that changes

export async function summary(prompt: string): Promise<string> {
  try {
    const { text } = await generateText({ model, prompt });
    return text;
  } catch (error) {
    if (isDenied(error)) return "Your budget is used up.";
    throw error;
  }
}
