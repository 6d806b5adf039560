export async function chatBefore({ db, model }, customer, prompt) {
  const allowed = await db.checkUsageAllowed(customer, 100); // everybody sees 900 of 1,000
  if (!allowed) throw new Error("over limit");
  const { reply, usedTokens } = await model(prompt); // seconds pass
  await db.incrementUsage(customer, usedTokens); // and everybody adds
  return reply;
}
