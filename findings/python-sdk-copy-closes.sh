#!/usr/bin/env bash
# openai and anthropic in Python: a `with` block around a copy of a client closes the client that was copied.
# Guess:  with_options() and copy() make a client of its own, and `with` closes what it opened.
# Seen:   the copy shares the connections, and the end of the block closes them: every later call of the original, in every
#         thread, fails. openai raises a bare RuntimeError, which no `except openai.OpenAIError` catches; anthropic an APIConnectionError.
set -euo pipefail
tmp=$(mktemp -d); trap 'rm -rf "$tmp"' EXIT; cd "$tmp"
python3 -m venv venv
venv/bin/pip install --quiet --no-compile --disable-pip-version-check openai==3.57.0 anthropic==2.14.0
cat >try.py <<'PY'
import json, sys, threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import version
import anthropic, openai

class Provider(BaseHTTPRequestHandler):
    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        data = json.dumps({"id": "m", "object": "chat.completion", "created": 1, "choices": []} if "chat" in self.path else
                          {"id": "m", "type": "message", "role": "assistant", "model": "m", "content": [], "stop_reason": "end_turn",
                           "usage": {"input_tokens": 1, "output_tokens": 1}}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)
    def log_message(self, *_):
        pass

server = ThreadingHTTPServer(("127.0.0.1", 0), Provider)
threading.Thread(target=server.serve_forever, daemon=True).start()
base = f"http://127.0.0.1:{server.server_port}"
question = [{"role": "user", "content": "Hi"}]
clients = {
    "openai": (openai.OpenAI(api_key="k", base_url=base, max_retries=0), openai.OpenAIError,
               lambda client: client.chat.completions.create(model="m", messages=question)),
    "anthropic": (anthropic.Anthropic(api_key="k", base_url=base, max_retries=0), anthropic.AnthropicError,
                  lambda client: client.messages.create(model="m", max_tokens=1, messages=question)),
}
seen = {}
for name, (client, base_error, ask) in clients.items():
    ask(client)
    with client.with_options(timeout=5) as copy:
        ask(copy)
    try:
        ask(client)
        seen[name] = "answered"
    except Exception as error:
        seen[name] = (type(error).__name__, isinstance(error, base_error))
print("openai", version("openai"), "anthropic", version("anthropic"))
print("the original after the copy's block (error, is the SDK's own):", seen)
server.shutdown()
if seen != {"openai": ("RuntimeError", False), "anthropic": ("APIConnectionError", True)}:
    sys.exit("CHANGED: the original ends in another way")
PY
venv/bin/python try.py
