from collections.abc import Mapping
from typing import Any

from earmark import scope_of
from earmark.litellm import EarmarkLogger


def scopes(arguments: Mapping[str, Any]) -> list[str]:
    metadata = arguments.get("metadata") or {}
    return [scope_of("acme", metadata.get("user_api_key_team_id") or "none", metadata.get("user_api_key_user_id") or "none")]


logger = EarmarkLogger(scopes=scopes, on_expiry="commit")
