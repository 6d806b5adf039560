import { EarmarkError } from "./errors.js";
import { sleep, type Transport } from "./transport.js";

// When a lease is extended, in parts of its length. A third of the lease is left at that point, enough for several attempts.
// Retry-After is ignored: it is at least a second, which may be the whole lease.
const shortestPauseMs = 50;
const longestPauseMs = 5_000;
const shortestLimitMs = 1_000; // of one attempt
const longestLimitMs = 10_000;

export const extendAfter = (ttlMs: number): number => (ttlMs * 2) / 3;
const pauseOf = (ttlMs: number): number => Math.min(Math.max(ttlMs / 15, shortestPauseMs), longestPauseMs) * (1 - Math.random() / 4);
const limitOf = (ttlMs: number): number => Math.min(Math.max(ttlMs / 6, shortestLimitMs), longestLimitMs);

/** What a client logs; `console` fits. */
export interface Logger {
  warn(message: string, details: Record<string, unknown>): void;
  error(message: string, details: Record<string, unknown>): void;
}

/**
 * Extends a lease until the function that it returns is called, which waits for a running extension. since is the moment of
 * performance.now() before the first call was sent; the client never compares its clock with the server's. Extending goes on
 * after the end of the lease while Earmark is away, because the state decides there, not the clock.
 */
export function keepLease(transport: Transport, log: Logger, id: string, ttlSeconds: number, since: number): () => Promise<void> {
  const stopped = new AbortController();
  const done = (async () => {
    const ttlMs = ttlSeconds * 1_000;
    let failing = false;
    let waitMs = since + extendAfter(ttlMs) - performance.now();
    for (;;) {
      await sleep(Math.max(0, waitMs), stopped.signal);
      const asked = performance.now();
      try {
        await transport.exchange({
          method: "POST",
          path: `/v1/reservations/${encodeURIComponent(id)}/extend`,
          body: { ttl_seconds: ttlSeconds },
          repeat: false,
          limitMs: limitOf(ttlMs),
          signal: stopped.signal,
        });
        failing = false;
        waitMs = asked + extendAfter(ttlMs) - performance.now();
      } catch (error) {
        stopped.signal.throwIfAborted();
        if (error instanceof EarmarkError && (error.code === "already_settled" || error.code === "reservation_expired")) {
          log.warn("the lease is over while the work runs; its commit will be late", { reservation_id: id, error });
          return; // nothing is left to extend, and the work's money may be spent
        }
        if (!failing) log.warn("the lease was not extended; trying again", { reservation_id: id, error });
        failing = true;
        waitMs = pauseOf(ttlMs);
      }
    }
  })().catch(() => {}); // stopped
  return async () => {
    stopped.abort();
    await done;
  };
}
