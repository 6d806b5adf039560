import { Earmark } from "@earmark-dev/client";

const earmark = new Earmark({ maxAttempts: 1, timeoutMs: 5_000 });

export async function compare(customer, allowed, log) {
  try {
    const { admitted, violations } = await earmark.decide({ scopes: [customer], amounts: { tokens: 100 } });
    if (admitted !== allowed) log("Earmark disagrees", { customer, allowed, violations });
  } catch (error) {
    log("Earmark has no answer", { customer, error });
  }
}
