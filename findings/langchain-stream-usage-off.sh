#!/usr/bin/env bash
# langchain-openai asks for usage in streams, until a base URL is set.
# Guess:  stream usage is on by default, and pointing the client at a gateway changes the address alone.
# Seen:   with base_url, OPENAI_BASE_URL or a client of one's own, stream_usage turns off silently: no usage_metadata in
#         any stream, just for those who put a meter in between.
set -euo pipefail
tmp=$(mktemp -d); trap 'rm -rf "$tmp"' EXIT; cd "$tmp"
python3 -m venv venv
venv/bin/pip install --quiet --no-compile --disable-pip-version-check langchain-core==1.8.3 langchain-openai==1.7.4
cat >try.py <<'PY'
import json, os, sys, threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import version
from langchain_openai import ChatOpenAI

class Provider(BaseHTTPRequestHandler):
    """Reports usage when it is asked to, as the protocol says."""
    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["content-length"]))).get("stream_options")
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.end_headers()
        base = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m"}
        chunks = [{**base, "choices": [{"index": 0, "delta": {"role": "assistant", "content": "Yes."}, "finish_reason": "stop"}]}]
        if asked and asked.get("include_usage"):
            chunks.append({**base, "choices": [], "usage": {"prompt_tokens": 1000, "completion_tokens": 3, "total_tokens": 1003}})
        for chunk in chunks:
            self.wfile.write(f"data: {json.dumps(chunk)}\n\n".encode())
        self.wfile.write(b"data: [DONE]\n\n")

    def log_message(self, *_):
        pass

server = ThreadingHTTPServer(("127.0.0.1", 0), Provider)
threading.Thread(target=server.serve_forever, daemon=True).start()
url = f"http://127.0.0.1:{server.server_port}/v1"

def total(**options):
    message = None
    for chunk in ChatOpenAI(model="m", api_key="none", base_url=url, **options).stream("Is it?"):
        message = chunk if message is None else message + chunk
    return message.usage_metadata and message.usage_metadata["total_tokens"]

os.environ.pop("OPENAI_BASE_URL", None)
default = ChatOpenAI(model="m", api_key="none").stream_usage
os.environ["OPENAI_BASE_URL"] = url
by_variable = ChatOpenAI(model="m", api_key="none").stream_usage
seen = (default, by_variable, total(), total(stream_usage=True))

print("langchain-openai", version("langchain-openai"))
print(f"stream_usage: {default} by default, {by_variable} with OPENAI_BASE_URL")
print(f"total tokens with base_url: {seen[2]}, and with stream_usage=True: {seen[3]}")
if seen != (True, None, None, 1003):
    print("CHANGED: a base URL no longer turns usage off")
    sys.exit(1)
PY
venv/bin/python try.py
