import { EarmarkError } from "./errors.js";

const maxIds = 8;
const maxScopeBytes = 255;
const maxSegmentBytes = 63;

/** Makes a scope of ids that may have any characters: `scopeOf("acme", "a@b.com")` is `acme/x--a_40b.com`. */
export function scopeOf(...ids: string[]): string {
  if (ids.length < 1 || ids.length > maxIds) throw invalid(`a scope has 1 to ${maxIds} ids, not ${ids.length}`);
  const scope = ids.map(segmentOf).join("/");
  if (scope.length > maxScopeBytes) throw invalid(`the scope ${scope} is ${scope.length} bytes long; at most ${maxScopeBytes} are allowed`);
  return scope;
}

/** The ids that scopeOf made the scope of. */
export function scopeIds(scope: string): string[] {
  return scope.split("/").map(idOf);
}

function segmentOf(id: string): string {
  if (id === "") throw invalid("an id is empty");
  const plain = /^[A-Za-z0-9_.-]+$/.test(id) && !id.startsWith("x--");
  const segment = plain ? id : "x--" + percentEncode(id).replaceAll("%", "_");
  if (segment.length > maxSegmentBytes) {
    throw invalid(`the id ${id} takes ${segment.length} bytes as a segment of a scope; at most ${maxSegmentBytes} are allowed`);
  }
  return segment;
}

function percentEncode(id: string): string {
  try {
    // encodeURIComponent leaves these alone.
    return encodeURIComponent(id).replace(/[_!'()*~]/g, (char) => "%" + char.charCodeAt(0).toString(16).toUpperCase());
  } catch {
    throw invalid("an id has half a surrogate pair");
  }
}

function idOf(segment: string): string {
  if (!segment.startsWith("x--")) return segment;
  try {
    const id = decodeURIComponent(segment.slice(3).replaceAll("_", "%"));
    return segmentOf(id) === segment ? id : segment;
  } catch {
    return segment; // not made by scopeOf
  }
}

const invalid = (message: string): EarmarkError => new EarmarkError("invalid_request", message, { field: "scopes" });
