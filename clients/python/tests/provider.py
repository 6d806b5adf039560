"""A provider of each API: it answers "one two three ✓", and counts what it bills."""

from __future__ import annotations

import gzip
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

WORDS = ["one", " two", " three ✓"]
TEXT = "".join(WORDS)
READ, WRITTEN = 11, 7
TOTAL = READ + WRITTEN


@dataclass
class Behaviour:
    """How the fake provider answers."""

    status: int = 200
    #: Cuts the connection after so many events, or before the answer.
    cut_after: int | None = None
    #: Ends the answer as if it were whole, after so many events.
    end_after: int | None = None
    #: Sends no more after so many events, and keeps the connection.
    hang_after: int | None = None
    #: Sends no more after so many events, until `resume` is set.
    pause_after: int | None = None
    #: No usage in the answer.
    no_usage: bool = False
    #: In place of the events.
    raw: bytes | None = None


class FakeProvider:
    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        self.behaviour = Behaviour()
        #: Of the next calls, before behaviour.
        self.next: list[Behaviour] = []
        self.over = threading.Event()
        self.resume = threading.Event()
        self.url = ""

    @contextmanager
    def serve(self) -> Iterator[FakeProvider]:
        provider = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                provider._answer(self)

            do_GET = do_POST

            def log_message(self, *_: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            block_on_close = False

            def handle_error(self, *_: object) -> None:
                pass  # a client that left

        with Server(("127.0.0.1", 0), Handler) as server:
            self.url = f"http://127.0.0.1:{server.server_port}"
            threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
            try:
                yield self
            finally:
                self.over.set()
                server.shutdown()

    def _answer(self, http: BaseHTTPRequestHandler) -> None:
        content = http.rfile.read(int(http.headers.get("Content-Length", 0)))
        self.bodies.append(content)
        behave = self.next.pop(0) if self.next else self.behaviour
        if behave.status != 200:
            self._send(http, behave.status, {"error": {"message": "no", "type": "provider"}})
            return
        events, whole = _answer_of(http.path.partition("?")[0], json.loads(content or b"{}"), behave.no_usage)
        if events is None:
            if behave.cut_after is not None:
                http.close_connection = True
                return
            self._send(http, 200, whole)
            return
        http.send_response(200)
        http.send_header("Content-Type", "text/event-stream; charset=utf-8")
        http.send_header("Transfer-Encoding", "chunked")
        http.end_headers()
        for i, event in enumerate(events if behave.raw is None else [behave.raw]):
            if i == behave.end_after:
                break
            if i == behave.hang_after:
                self.over.wait()
                http.close_connection = True
                return
            if i == behave.pause_after:
                self.resume.wait(60)
            if i == behave.cut_after:
                http.close_connection = True
                return
            for piece in (event[:7], event[7:]):  # which come apart
                if piece:
                    http.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
                    http.wfile.flush()
        http.wfile.write(b"0\r\n\r\n")

    def _send(self, http: BaseHTTPRequestHandler, status: int, body: Any) -> None:
        content = json.dumps(body).encode()
        http.send_response(status)
        http.send_header("Content-Type", "application/json")
        if status == 200 and "gzip" in http.headers.get("Accept-Encoding", ""):
            content = gzip.compress(content)
            http.send_header("Content-Encoding", "gzip")
        http.send_header("Content-Length", str(len(content)))
        http.end_headers()
        http.wfile.write(content)


def _data(event: object) -> bytes:
    text = event if isinstance(event, str) else json.dumps(event, ensure_ascii=False)
    return f"data: {text}\n\n".encode()


def _named(event: dict[str, Any]) -> bytes:
    return f"event: {event['type']}\n".encode() + _data(event)


def _answer_of(path: str, body: dict[str, Any], no_usage: bool) -> tuple[list[bytes] | None, Any]:
    usage: dict[str, Any]
    if path.endswith("/chat/completions"):
        base: dict[str, Any] = {"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": body["model"]}
        usage = {"prompt_tokens": READ, "completion_tokens": WRITTEN, "total_tokens": TOTAL}
        if not body.get("stream"):
            choice = {"index": 0, "message": {"role": "assistant", "content": TEXT}, "finish_reason": "stop"}
            return None, {**base, "object": "chat.completion", "choices": [choice], **({} if no_usage else {"usage": usage})}
        chunks = [{**base, "choices": [{"index": 0, "delta": {"content": word}, "finish_reason": None}]} for word in WORDS]
        chunks.append({**base, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
        if (body.get("stream_options") or {}).get("include_usage") and not no_usage:
            chunks.append({**base, "choices": [], "usage": usage})
        return [*map(_data, chunks), _data("[DONE]")], None
    if path.endswith("/responses"):
        said = {"type": "output_text", "text": TEXT, "annotations": []}
        message = {"type": "message", "id": "i", "role": "assistant", "status": "completed", "content": [said]}
        usage = {
            "input_tokens": READ,
            "output_tokens": WRITTEN,
            "total_tokens": TOTAL,
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens_details": {"reasoning_tokens": 0},
        }
        response: dict[str, Any] = {"id": "r1", "object": "response", "status": "completed", "model": body["model"], "created_at": 1, "output": [message]}
        response |= {"usage": usage, "parallel_tool_calls": False, "tool_choice": "auto", "tools": []}
        if not body.get("stream"):
            return None, response
        place = {"output_index": 0, "content_index": 0, "item_id": "i"}
        deltas: list[dict[str, Any]] = [{"type": "response.output_text.delta", "delta": word, "logprobs": [], **place} for word in WORDS]
        created: dict[str, Any] = {"type": "response.created", "response": {**response, "status": "in_progress", "usage": None, "output": []}}
        numbered = [{**event, "sequence_number": i} for i, event in enumerate([created, *deltas, {"type": "response.completed", "response": response}])]
        return list(map(_named, numbered)), None
    if path.endswith("/messages"):
        usage = {"input_tokens": 4, "cache_read_input_tokens": 5, "cache_creation_input_tokens": 2, "output_tokens": WRITTEN}
        whole: dict[str, Any] = {"id": "m1", "type": "message", "role": "assistant", "model": body["model"], "content": [{"type": "text", "text": TEXT}]}
        whole |= {"stop_reason": "end_turn", "stop_sequence": None, "usage": usage}
        if not body.get("stream"):
            return None, whole
        begun = {**whole, "content": [], "stop_reason": None, "usage": {**usage, "output_tokens": 1}}
        return [
            _named({"type": "message_start", "message": begun}),
            _named({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}),
            *[_named({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": word}}) for word in WORDS],
            _named({"type": "content_block_stop", "index": 0}),
            _named({"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": WRITTEN}}),
            _named({"type": "message_stop"}),
        ], None
    if "enerateContent" in path:
        usage = {"promptTokenCount": 8, "toolUsePromptTokenCount": 3, "candidatesTokenCount": 4, "thoughtsTokenCount": 3, "totalTokenCount": TOTAL}

        def part(text: str, **more: object) -> dict[str, Any]:
            return {"candidates": [{"content": {"role": "model", "parts": [{"text": text}]}, **more}], "usageMetadata": usage}

        if ":stream" not in path:
            return None, part(TEXT, finishReason="STOP")
        parts = [part(WORDS[0]), part(WORDS[1]), part(WORDS[2], finishReason="STOP")]
        for early in parts[:2]:
            early["usageMetadata"] = {**usage, "candidatesTokenCount": 1, "totalTokenCount": 12}
        return [_data(event).replace(b"\n", b"\r\n") for event in parts], None
    if path.endswith("/embeddings"):
        vector = {"object": "embedding", "index": 0, "embedding": [0.5]}
        return None, {"object": "list", "model": body["model"], "data": [vector], "usage": {"prompt_tokens": READ, "total_tokens": READ}}
    return None, {"object": "list", "data": []}
