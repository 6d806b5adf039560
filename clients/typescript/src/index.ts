export { Earmark, eachItem, type CallOptions, type EarmarkOptions, type KeyedOptions } from "./client.js";
export { EarmarkError, isDenied, KeyInUseError, NothingSentError, UnsettledError, type ErrorCode } from "./errors.js";
export type { Guarded, GuardOptions, GuardRequest, Run } from "./guard.js";
export type { Logger } from "./lease.js";
export type { Meter } from "./meter.js";
export { scopeIds, scopeOf } from "./scope.js";
export type * from "./types.js";
