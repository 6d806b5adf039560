import { earmark } from "./earmark.ts";

export async function compare(customer, allowed, log) {
  const { status, body } = await earmark("/v1/decisions", { scopes: [customer], amounts: { tokens: 100 } });
  if (status !== 200) log("Earmark has no answer", { customer, detail: body.detail });
  else if (body.admitted !== allowed) log("Earmark disagrees", { customer, allowed, violations: body.violations });
}
