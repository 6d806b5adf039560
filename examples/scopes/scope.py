"""Scopes of ids that have other characters than A-Z a-z 0-9 _ . -, as earmark.ScopeOf and ScopeIDs make and read them:
scope_of("acme", "a@b.com") is "acme/x--a_40b.com"."""

import re
from urllib.parse import quote, unquote_to_bytes


def scope_of(*ids: str) -> str:
    scope = "/".join(_segment_of(id) for id in ids)
    if not 1 <= len(ids) <= 8:
        raise ValueError(f"a scope has 1 to 8 ids, not {len(ids)}")
    if len(scope) > 255:
        raise ValueError(f"the scope {scope} is {len(scope)} bytes long; at most 255 are allowed")
    return scope


def scope_ids(scope: str) -> list[str]:
    return [_id_of(segment) for segment in scope.split("/")]


def _segment_of(id: str) -> str:
    if not id:
        raise ValueError("an id is empty")
    plain = re.fullmatch(r"[A-Za-z0-9_.-]+", id) and not id.startswith("x--")
    # quote leaves "_" and "~" alone. It raises a UnicodeEncodeError, a ValueError, where an id has half a surrogate pair.
    encoded = quote(id, safe="").replace("_", "%5F").replace("~", "%7E").replace("%", "_")
    segment = id if plain else "x--" + encoded
    if len(segment) > 63:
        raise ValueError(f"the id {id} takes {len(segment)} bytes as a segment of a scope; at most 63 are allowed")
    return segment


def _id_of(segment: str) -> str:
    if not segment.startswith("x--"):
        return segment
    try:
        id = unquote_to_bytes(segment[3:].replace("_", "%")).decode("utf-8")
        return id if _segment_of(id) == segment else segment
    except ValueError:  # not made by scope_of
        return segment
