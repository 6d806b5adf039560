import type { Earmark } from "./client.js";
import type { GuardedRun, GuardRequest } from "./guard.js";
import type { FailOpenOptions, OpenRun } from "./late.js";
import type { Counts } from "./providers.js";
import type { Amounts, Estimate, OnExpiry } from "./types.js";

/** What a call may use if it sets no limit itself. */
export const defaultMaxOutputTokens = 16_384;

/** What a guard of model calls can count. */
export type FetchUnit = "tokens" | "input_tokens" | "output_tokens" | "requests";

/** The options of everything that guards calls of models. */
export interface ModelGuardOptions {
  /** Left out: a new one, by EARMARK_URL and EARMARK_API_KEY. */
  earmark?: Earmark;
  /** Who pays for a call whose usage nobody knows; see docs/typescript.md. */
  on_expiry: OnExpiry;
  /**
   * What to count, by the guard itself. Left out: Earmark computes amounts from the model and the provider's usage, in the units that
   * the budgets count, `usd_micros` too; it then has to know the model's price if a budget counts money.
   */
  units?: FetchUnit[];
  /** The company that bills, for Earmark's prices; needed if several have the model. */
  provider?: string;
  ttl_seconds?: number;
  /** Refuses a scope without a budget of its own: one above it does not count. */
  require_budget?: boolean;
  /** Reserved for the output of a call that sets no limit; 16,384. */
  maxOutputTokens?: number;
  /** While Earmark is away, calls run without a reservation, and are charged when it is back; see docs/typescript.md. */
  failOpen?: boolean | FailOpenOptions;
}

/** The most that a call may use. */
export interface WorstCase {
  api: string;
  model: string;
  inputTokens: number;
  /** Of each answer. */
  outputTokens: number;
  answers: number;
  serviceTier?: string | undefined;
}

export function requestFor(options: ModelGuardOptions, scopes: string[], call: WorstCase): GuardRequest {
  const { inputTokens, outputTokens, answers } = call;
  const estimate: Estimate = {
    model: call.model,
    ...(options.provider !== undefined && { provider: options.provider }),
    input_tokens: inputTokens,
    max_output_tokens: outputTokens,
    n: answers,
    ...(call.serviceTier !== undefined && { service_tier: call.serviceTier }),
  };
  return {
    scopes,
    ...(options.units === undefined ? { estimate } : { amounts: amountsOf(options.units, { inputTokens, outputTokens: outputTokens * answers }) }),
    on_expiry: options.on_expiry,
    ...(options.ttl_seconds !== undefined && { ttl_seconds: options.ttl_seconds }),
    ...(options.require_budget && { require_budget: true }),
    metadata: { api: call.api, model: call.model.slice(0, 100) },
  };
}

/** Counts in the form in which OpenAI has them, for Earmark to price. */
function usageOf({ inputTokens, outputTokens }: Counts): object {
  return { prompt_tokens: inputTokens, completion_tokens: outputTokens, total_tokens: inputTokens + outputTokens };
}

function amountsOf(units: FetchUnit[], { inputTokens, outputTokens, requests = 1 }: Omit<Counts, "exact">): Amounts {
  const all = { tokens: inputTokens + outputTokens, input_tokens: inputTokens, output_tokens: outputTokens, requests };
  return Object.fromEntries(units.map((unit) => [unit, all[unit]]));
}

/** A call that is admitted: it ends once. */
export class AdmittedCall {
  #ended: Promise<void> | undefined;

  constructor(
    protected readonly run: GuardedRun | OpenRun,
    private readonly units: FetchUnit[] | undefined,
  ) {}

  nothingSent(): void {
    this.run.meter.nothingSent();
  }

  /** Settles. What cannot be settled is logged and reported: the answer of the provider stands. */
  end(counts: Counts | undefined, error?: unknown): Promise<void> {
    this.#ended ??= (async () => {
      if (counts !== undefined) {
        const { usage, usageFormat } = counts;
        if (this.units !== undefined) this.run.meter.set(amountsOf(this.units, counts));
        else if (usage !== undefined) this.run.meter.setProviderUsage(usage, usageFormat === undefined ? {} : { usage_format: usageFormat });
        else this.run.meter.setProviderUsage(usageOf(counts), { usage_format: "openai_chat" });
        this.run.meter.estimated = !counts.exact;
      }
      await this.run.end(error === undefined ? { failed: false, value: undefined } : { failed: true, error }).catch(() => {});
    })();
    return this.#ended;
  }
}

/** A refusal bills nothing. Behind a time-out the model may have run. */
export const billsNothing = (status: number): boolean => status >= 400 && ![408, 499, 504, 522, 524].includes(status);

const connectErrors = ["ECONNREFUSED", "ENOTFOUND", "EAI_AGAIN", "EHOSTUNREACH", "ENETUNREACH", "UND_ERR_CONNECT_TIMEOUT"];

/** Whether the connection was never made. */
export function isUnsent(error: unknown): boolean {
  if (!(error instanceof Error)) return false;
  const { code, errors } = error as { code?: unknown; errors?: unknown };
  if (Array.isArray(errors) && errors.length > 0) return errors.every(isUnsent); // one for each address
  return (typeof code === "string" && connectErrors.includes(code)) || isUnsent(error.cause);
}
