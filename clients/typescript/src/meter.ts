import type { Amounts, ProviderResponse } from "./types.js";

/** Counts the usage of a run. What is counted after the run has ended is not charged. */
export class Meter {
  #used: Amounts | undefined;
  #nothingSent = false;
  /** The count is an estimate, as of a stream that broke: the first commit without `estimated` corrects it. */
  estimated = false;
  #response: ProviderResponse | undefined;

  /** Adds amounts, such as the tokens of one chunk. */
  add(amounts: Amounts): void {
    this.#used ??= {};
    for (const [unit, amount] of Object.entries(amounts)) {
      // The largest number that JSON carries exactly: Earmark would refuse a larger one, and the usage would be lost.
      this.#used[unit] = Math.min((this.#used[unit] ?? 0) + amount, Number.MAX_SAFE_INTEGER);
    }
  }

  /** Replaces the count of each unit that it names, such as by the model's own totals. */
  set(amounts: Amounts): void {
    this.#used = { ...this.#used, ...amounts };
  }

  /**
   * Charges what the usage object of a provider says, at the prices of the reservation's estimate, in place of the count. Earmark
   * refuses an object that it cannot read or price; the reservation is then not settled.
   */
  setProviderUsage(usage: object, about: Omit<ProviderResponse, "provider_usage"> = {}): void {
    this.#response = { provider_usage: usage, ...about };
  }

  /** @internal */
  get response(): ProviderResponse | undefined {
    return this.#response;
  }

  /** Says that no request was sent, so that nothing can have been spent. Counted usage takes precedence. */
  nothingSent(): void {
    this.#nothingSent = true;
  }

  /** The count so far; undefined if nothing was counted, not even a zero. */
  get usage(): Amounts | undefined {
    return this.#used && { ...this.#used };
  }

  /** @internal The usage that settles a run: a reserved unit that was not counted is zero. */
  report(reserved: Amounts): { usage: Amounts | undefined; nothingSent: boolean } {
    const zeros = Object.fromEntries(Object.keys(reserved).map((unit) => [unit, 0]));
    return { usage: this.#used && { ...zeros, ...this.#used }, nothingSent: this.#nothingSent };
  }
}
