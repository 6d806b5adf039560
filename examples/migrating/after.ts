import { earmark } from "./earmark.ts";

export async function chatAfter({ model }, customer, requestID, prompt) {
  const request = { scopes: [customer], amounts: { tokens: 100 }, ttl_seconds: 120 };
  const { status, body: reservation } = await earmark("/v1/reservations", request, { "Idempotency-Key": requestID });
  if (status === 402) throw new Error("over limit");
  if (status !== 201) throw new Error(reservation.detail); // no decision is not a yes
  let answer;
  try {
    answer = await model(prompt);
  } catch (error) {
    await earmark(`/v1/reservations/${reservation.id}/release`, { reason: "the model failed" });
    throw error;
  }
  const settled = await earmark(`/v1/reservations/${reservation.id}/commit`, { usage: { tokens: answer.usedTokens } });
  if (settled.status >= 300) throw new Error(settled.body.detail);
  return answer.reply;
}
