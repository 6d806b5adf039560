import { Earmark, isDenied } from "@earmark-dev/client";

const earmark = new Earmark(); // the server at EARMARK_URL, with the key EARMARK_API_KEY

export async function chatAfter({ model }, customer, requestID, prompt) {
  const request = { scopes: [customer], amounts: { tokens: 100 }, ttl_seconds: 120, on_expiry: "commit" };
  const work = async ({ meter }) => {
    const { reply, usedTokens } = await model(prompt); // the model may have run even if this throws
    meter.set({ tokens: usedTokens });
    return reply;
  };
  try {
    return (await earmark.guard(request, work, { key: requestID })).value;
  } catch (error) {
    throw isDenied(error) ? new Error("over limit") : error;
  }
}
