#!/usr/bin/env bash
# opentelemetry-instrumentation-anthropic adds up running totals: spans of streams count more output than was billed.
# Guess:  gen_ai.usage.output_tokens of a streamed answer equals that of the same answer in one piece.
# Seen:   message_start says 8, message_delta says 20 in all; billed are 20, the span says 28.
set -euo pipefail
tmp=$(mktemp -d); trap 'rm -rf "$tmp"' EXIT; cd "$tmp"
python3 -m venv venv
venv/bin/pip install --quiet --no-compile --disable-pip-version-check \
  anthropic==2.14.0 opentelemetry-sdk==1.45.2 opentelemetry-instrumentation-anthropic==0.62.4
cat >try.py <<'PY'
import json, sys, threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import version
import anthropic
from opentelemetry.instrumentation.anthropic import AnthropicInstrumentor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

def message(content, stop, output):
    return {"id": "m", "type": "message", "role": "assistant", "model": "claude-opus-4-6", "content": content,
            "stop_reason": stop, "stop_sequence": None, "usage": {"input_tokens": 100, "output_tokens": output}}

EVENTS = [
    {"type": "message_start", "message": message([], None, 8)},
    {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "It is."}},
    {"type": "content_block_stop", "index": 0},
    {"type": "message_delta", "delta": {"stop_reason": "end_turn", "stop_sequence": None}, "usage": {"output_tokens": 20}},
    {"type": "message_stop"},
]

class Provider(BaseHTTPRequestHandler):
    def do_POST(self):
        stream = json.loads(self.rfile.read(int(self.headers["content-length"]))).get("stream")
        if stream:
            body = "".join(f"event: {e['type']}\ndata: {json.dumps(e)}\n\n" for e in EVENTS)
        else:
            body = json.dumps(message([{"type": "text", "text": "It is."}], "end_turn", 20))
        self.send_response(200)
        self.send_header("content-type", "text/event-stream" if stream else "application/json")
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *_):
        pass

server = ThreadingHTTPServer(("127.0.0.1", 0), Provider)
threading.Thread(target=server.serve_forever, daemon=True).start()
spans, provider = InMemorySpanExporter(), TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(spans))
AnthropicInstrumentor().instrument(tracer_provider=provider)
client = anthropic.Anthropic(api_key="none", base_url=f"http://127.0.0.1:{server.server_port}")
ask = {"model": "claude-opus-4-6", "max_tokens": 99, "messages": [{"role": "user", "content": "Is it?"}]}
client.messages.create(**ask)
for _ in client.messages.create(**ask, stream=True):
    pass
whole, streamed = [s.attributes["gen_ai.usage.output_tokens"] for s in spans.get_finished_spans()]
print("opentelemetry-instrumentation-anthropic", version("opentelemetry-instrumentation-anthropic"))
print(f"output tokens billed 20, span of the whole answer {whole}, span of the streamed answer {streamed}")
if (whole, streamed) != (20, 28):
    print("CHANGED: streams are counted in another way")
    sys.exit(1)
PY
venv/bin/python try.py
