import { guard } from "./guard.ts";

export async function chatAfter({ model }, customer, requestID, prompt) {
  const request = { scopes: [customer], amounts: { tokens: 100 }, ttl_seconds: 120, on_expiry: "commit" };
  return guard(request, requestID, async () => {
    const { reply, usedTokens } = await model(prompt); // the model may have run even if this throws
    return { reply, usage: { tokens: usedTokens } };
  });
}
