from collections.abc import Mapping

from standardwebhooks import Webhook

from earmark import types


def received(body: bytes, headers: Mapping[str, str], secret: str) -> types.Event:
    """Checks a delivery. body is the request's as it came; an error means to answer 401."""
    event: types.Event = Webhook(secret).verify(body, dict(headers))["data"]
    return event
