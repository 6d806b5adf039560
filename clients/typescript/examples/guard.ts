import { Earmark, isDenied, scopeOf, type GuardRequest } from "@earmark-dev/client";

const earmark = new Earmark(); // one for the whole process; EARMARK_URL and EARMARK_API_KEY

export async function chat(user: string, prompt: string, model: Model): Promise<string> {
  const request: GuardRequest = { scopes: [scopeOf("acme", "ml", user)], amounts: { tokens: 500 }, on_expiry: "commit" };
  try {
    const { value } = await earmark.guard(request, async ({ meter }) => {
      const reply = await model(prompt);
      meter.set({ tokens: reply.usedTokens });
      return reply.text;
    });
    return value;
  } catch (error) {
    if (isDenied(error)) return "Your budget is used up.";
    throw error;
  }
}

export type Model = (prompt: string) => Promise<{ text: string; usedTokens: number }>;
