import re
from urllib.parse import quote, unquote_to_bytes

from ._errors import EarmarkError

_MAX_IDS = 8
_MAX_SCOPE_BYTES = 255
_MAX_SEGMENT_BYTES = 63


def scope_of(*ids: str) -> str:
    """Makes a scope of ids that may have any characters: `scope_of("acme", "a@b.com")` is `acme/x--a_40b.com`. It raises an
    EarmarkError where they do not fit into a scope."""
    if not 1 <= len(ids) <= _MAX_IDS:
        raise _invalid(f"a scope has 1 to {_MAX_IDS} ids, not {len(ids)}")
    scope = "/".join(_segment_of(id) for id in ids)
    if len(scope) > _MAX_SCOPE_BYTES:
        raise _invalid(f"the scope {scope} is {len(scope)} bytes long; at most {_MAX_SCOPE_BYTES} are allowed")
    return scope


def scope_ids(scope: str) -> list[str]:
    """The ids that scope_of made the scope of."""
    return [_id_of(segment) for segment in scope.split("/")]


def _segment_of(id: str) -> str:
    if not id:
        raise _invalid("an id is empty")
    plain = re.fullmatch(r"[A-Za-z0-9_.-]+", id) and not id.startswith("x--")
    segment = id if plain else "x--" + _percent_encode(id).replace("%", "_")
    if len(segment) > _MAX_SEGMENT_BYTES:
        raise _invalid(f"the id {id} takes {len(segment)} bytes as a segment of a scope; at most {_MAX_SEGMENT_BYTES} are allowed")
    return segment


def _percent_encode(id: str) -> str:
    try:
        return quote(id, safe="").replace("_", "%5F").replace("~", "%7E")  # quote leaves both alone
    except UnicodeEncodeError:
        raise _invalid("an id has half a surrogate pair") from None


def _id_of(segment: str) -> str:
    if not segment.startswith("x--"):
        return segment
    try:
        id = unquote_to_bytes(segment[3:].replace("_", "%")).decode("utf-8")
        return id if _segment_of(id) == segment else segment
    except (ValueError, EarmarkError):  # not made by scope_of
        return segment


def _invalid(message: str) -> EarmarkError:
    return EarmarkError("invalid_request", message, field="scopes")
