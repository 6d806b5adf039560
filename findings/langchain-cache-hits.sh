#!/usr/bin/env bash
# langchain-core: answers from LangChain's cache count as used tokens.
# Guess:  an answer from the cache has no usage, or usage of zero, since no model was called.
# Seen:   one request, asked three times: usage_metadata is 1,010 tokens each time, and the usage callback says 3,030.
#         Only an extra field total_cost 0 marks a hit, and the callback passes it on beside the sum of all three.
set -euo pipefail
tmp=$(mktemp -d); trap 'rm -rf "$tmp"' EXIT; cd "$tmp"
python3 -m venv venv
venv/bin/pip install --quiet --no-compile --disable-pip-version-check langchain-core==1.8.3 langchain-openai==1.7.4
cat >try.py <<'PY'
import json, sys, threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import version
from langchain_core.caches import InMemoryCache
from langchain_core.callbacks import get_usage_metadata_callback
from langchain_openai import ChatOpenAI

calls = 0

class Provider(BaseHTTPRequestHandler):
    def do_POST(self):
        global calls
        calls += 1
        self.rfile.read(int(self.headers["content-length"]))
        body = json.dumps({
            "id": "c", "object": "chat.completion", "created": 1, "model": "m",
            "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "Yes."}}],
            "usage": {"prompt_tokens": 1000, "completion_tokens": 10, "total_tokens": 1010},
        }).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass

server = ThreadingHTTPServer(("127.0.0.1", 0), Provider)
threading.Thread(target=server.serve_forever, daemon=True).start()
model = ChatOpenAI(model="m", api_key="none", base_url=f"http://127.0.0.1:{server.server_port}/v1", cache=InMemoryCache())
with get_usage_metadata_callback() as callback:
    each = [model.invoke("Is it?").usage_metadata["total_tokens"] for _ in range(3)]
counted = callback.usage_metadata["m"]["total_tokens"]

print("langchain-core", version("langchain-core"), "langchain-openai", version("langchain-openai"))
print(f"requests to the provider {calls}, usage of each answer {each}, usage callback {counted}")
if (calls, each, counted) != (1, [1010, 1010, 1010], 3030):
    print("CHANGED: answers from the cache are counted in another way")
    sys.exit(1)
PY
venv/bin/python try.py
