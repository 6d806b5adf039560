export { Earmark, eachItem, type CallOptions, type EarmarkOptions, type KeyedOptions } from "./client.js";
export { EarmarkError, isDenied, KeyInUseError, NothingSentError, UnsettledError, type ErrorCode } from "./errors.js";
export { denialOf, guardedFetch, type Denial, type FetchUnit, type GuardedFetchOptions } from "./fetch.js";
export type { Guarded, GuardOptions, GuardRequest, Run } from "./guard.js";
export type { Logger } from "./lease.js";
export type { Meter } from "./meter.js";
export type { ProviderApi, ProviderCall } from "./providers.js";
export { scopeIds, scopeOf } from "./scope.js";
export type * from "./types.js";
