#!/usr/bin/env bash
# litellm makes usage up when a provider's stream has none, and does not mark it.
# Guess:  a caller who asked for usage, and whose provider sends none, gets no usage.
# Seen:   a last chunk with prompt_tokens, completion_tokens and a cost, counted by litellm's own tokenizer, in the shape
#         of the provider's. 5,000 reasoning tokens that the provider bills cannot be in it.
set -euo pipefail
tmp=$(mktemp -d); trap 'rm -rf "$tmp"' EXIT; cd "$tmp"
python3 -m venv venv
venv/bin/pip install --quiet --no-compile --disable-pip-version-check litellm==1.110.2
cat >try.py <<'PY'
import json, os, sys, threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import version
os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # the prices of this release, not of today
import litellm

class Provider(BaseHTTPRequestHandler):
    """A compatible vendor that does not know stream_options."""
    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.end_headers()
        for content, finish in (("It is, and it was.", None), ("", "stop")):
            chunk = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "gpt-4o",
                     "choices": [{"index": 0, "delta": {"role": "assistant", "content": content}, "finish_reason": finish}]}
            self.wfile.write(f"data: {json.dumps(chunk)}\n\n".encode())
        self.wfile.write(b"data: [DONE]\n\n")

    def log_message(self, *_):
        pass

server = ThreadingHTTPServer(("127.0.0.1", 0), Provider)
threading.Thread(target=server.serve_forever, daemon=True).start()
stream = litellm.completion(
    model="openai/gpt-4o", api_base=f"http://127.0.0.1:{server.server_port}/v1", api_key="none", stream=True,
    stream_options={"include_usage": True}, messages=[{"role": "user", "content": "Is it?"}])
usages = [c.usage.model_dump(exclude_none=True) for c in stream if getattr(c, "usage", None)]

print("litellm", version("litellm"))
print("usage chunks, of a provider that sent none:", usages)
marks = [k for u in usages for k in u if "estimat" in k]
if len(usages) != 1 or usages[0]["completion_tokens"] <= 0 or usages[0]["prompt_tokens"] <= 0 or marks:
    print("CHANGED: unknown usage is missing or marked")
    sys.exit(1)
PY
venv/bin/python try.py
