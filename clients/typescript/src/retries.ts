import type { GuardedRun } from "./guard.js";

/** An attempt whose outcome nobody knows. Its reservation is left to its expiry policy. */
export interface LeftAttempt {
  run: GuardedRun;
  /** The estimated input of this attempt and of those before. */
  inputTokens: number;
  attempts: number;
}

/**
 * The attempts that were left open. The next attempt of the same call takes the reservation over, so that the call holds once. Only the
 * SDKs of OpenAI and Anthropic, and those generated like them, number their attempts.
 */
export class LeftAttempts {
  readonly #left = new Map<string, (LeftAttempt & { endsMs: number })[]>();

  put(call: string, attempt: LeftAttempt): void {
    const now = performance.now();
    for (const [other, attempts] of this.#left) {
      const current = attempts.filter(({ endsMs }) => endsMs > now);
      if (current.length === 0) this.#left.delete(other);
      else this.#left.set(other, current);
    }
    const endsMs = now + attempt.run.ttlSeconds * 1_000;
    this.#left.set(call, [...(this.#left.get(call) ?? []), { ...attempt, endsMs }]);
  }

  /** The attempt that was left last; undefined if there is none whose lease may run. */
  take(call: string): LeftAttempt | undefined {
    const attempts = this.#left.get(call);
    const last = attempts?.pop();
    if (attempts?.length === 0) this.#left.delete(call);
    return last !== undefined && last.endsMs > performance.now() ? last : undefined;
  }
}

/** Names a call with its caller, its scopes and its bytes, which are the same in each attempt. */
export function callName(url: URL, headers: Headers, scopes: string[], body: string): string {
  const keys = ["Authorization", "X-Api-Key", "X-Goog-Api-Key"].map((name) => headers.get(name));
  return JSON.stringify([url.href, keys, scopes, body]);
}

/** Whether an SDK says that this is not its first attempt of a call. */
export const isRetry = (headers: Headers): boolean => Number(headers.get("X-Stainless-Retry-Count")) > 0;
