import { post } from "./earmark.ts";

export async function compare(customer, allowed, log) {
  const { status, body } = await post("/v1/decisions", { scopes: [customer], amounts: { tokens: 100 } }, { attempts: 1, limitMs: 5_000 });
  if (status !== 200) log("Earmark has no answer", { customer, detail: body.detail });
  else if (body.admitted !== allowed) log("Earmark disagrees", { customer, allowed, violations: body.violations });
}
