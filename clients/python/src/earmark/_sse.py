from __future__ import annotations

import re
from typing import NamedTuple

_EMPTY_LINE = re.compile(rb"[\r\n]")
_END = re.compile(rb"(?:\r\n|\r(?!\n)|\n)(?:\r\n|\r|\n)")
# Bounds an event. A longer one passes on unread.
_MAX_EVENT_BYTES = 16 << 20


class StreamEvent(NamedTuple):
    """An event of a stream: its bytes as they came, with the empty line that ends it, and its data."""

    content: bytes
    data: str


class EventSplitter:
    """Cuts a stream of server-sent events into events, and keeps every byte. A line ends with CR, LF or both. A CR in an empty line
    ends the event at once; an LF that comes later is an empty line of its own."""

    def __init__(self) -> None:
        self._pending = bytearray()
        self._scanned = 0

    def push(self, chunk: bytes) -> list[StreamEvent]:
        self._pending += chunk
        events: list[StreamEvent] = []
        begin = 0
        # A part of the end may have been seen: that of the line before the empty one.
        at = max(0, self._scanned - 2)
        while found := _EMPTY_LINE.match(self._pending, begin) or _END.search(self._pending, max(begin, at)):
            events.append(_event_of(bytes(self._pending[begin : found.end()])))
            begin = at = found.end()
        if len(self._pending) - begin > _MAX_EVENT_BYTES:
            events.append(_event_of(bytes(self._pending[begin:])))
            begin = len(self._pending)
        del self._pending[:begin]
        self._scanned = len(self._pending)
        return events

    def end(self) -> StreamEvent:
        """What came after the last whole event."""
        return _event_of(bytes(self._pending))


def _event_of(content: bytes) -> StreamEvent:
    lines = re.split(r"[\r\n]", content.decode("utf-8", "replace"))
    data = [line[len("data:") :].lstrip() for line in lines if line.startswith("data:")]
    return StreamEvent(content, "\n".join(data))
