// Scopes of ids that have other characters than A-Z a-z 0-9 _ . -, as earmark.ScopeOf and ScopeIDs make and read them:
// scopeOf("acme", "a@b.com") is "acme/x--a_40b.com".

export function scopeOf(...ids) {
  const scope = ids.map(segmentOf).join("/");
  if (ids.length < 1 || ids.length > 8) throw new RangeError(`a scope has 1 to 8 ids, not ${ids.length}`);
  if (scope.length > 255) throw new RangeError(`the scope ${scope} is ${scope.length} bytes long; at most 255 are allowed`);
  return scope;
}

export const scopeIDs = (scope) => scope.split("/").map(idOf);

function segmentOf(id) {
  if (id === "") throw new RangeError("an id is empty");
  const plain = /^[A-Za-z0-9_.-]+$/.test(id) && !id.startsWith("x--");
  const segment = plain ? id : "x--" + percentEncode(id).replaceAll("%", "_");
  if (segment.length > 63) throw new RangeError(`the id ${id} takes ${segment.length} bytes as a segment of a scope; at most 63 are allowed`);
  return segment;
}

// encodeURIComponent leaves these alone. It throws a URIError where an id has half a surrogate pair.
const percentEncode = (id) =>
  encodeURIComponent(id).replace(/[_!'()*~]/g, (char) => "%" + char.charCodeAt(0).toString(16).toUpperCase());

function idOf(segment) {
  if (!segment.startsWith("x--")) return segment;
  try {
    const id = decodeURIComponent(segment.slice(3).replaceAll("_", "%"));
    return segmentOf(id) === segment ? id : segment;
  } catch {
    return segment; // not made by scopeOf
  }
}
