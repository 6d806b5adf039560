#!/usr/bin/env bash
# Lago's agent SDK: a wrapped OpenAI client does not bill parse(), with_options(…), or a stream that is left.
# Guess:  after wrap(client) each chat completion of the client makes events, with whatever options, and one that a user stops too.
# Seen:   create() is billed, and its streams that are read to their end. parse() and with_options(timeout=5).create() make no event and
#         no warning; a stream that is left makes none either, although the provider has read the prompt.
set -euo pipefail
tmp=$(mktemp -d); trap 'rm -rf "$tmp"' EXIT; cd "$tmp"
python3 -m venv venv
venv/bin/pip install --quiet --no-compile --disable-pip-version-check lago-agent-sdk==0.3.1 openai==3.57.0
cat >try.py <<'PY'
import json, sys, threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import version
from lago_agent_sdk import LagoSDK
from openai import OpenAI

USAGE = {"prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 120}
events = []

class Server(BaseHTTPRequestHandler):  # the provider and Lago
    def do_POST(self):
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        base = {"id": "c1", "created": 1, "model": "gpt-5.5"}
        if "/events" in self.path:
            events.extend(request["events"])
            return self.answer("application/json", json.dumps({}))
        if request.get("stream"):
            parts = [{"choices": [{"index": 0, "delta": {"content": "yes "}}]}] * 20 + [{"choices": [], "usage": USAGE}]
            text = "".join("data: %s\n\n" % json.dumps({**base, "object": "chat.completion.chunk", **part}) for part in parts)
            return self.answer("text/event-stream", text + "data: [DONE]\n\n")
        choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "yes"}}
        self.answer("application/json", json.dumps({**base, "object": "chat.completion", "choices": [choice], "usage": USAGE}))

    def answer(self, kind, text):
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_):
        pass

server = ThreadingHTTPServer(("127.0.0.1", 0), Server)
threading.Thread(target=server.serve_forever, daemon=True).start()
url = f"http://127.0.0.1:{server.server_port}"
lago = LagoSDK(api_key="none", api_url=url, default_subscription_id="sub_1")
client = lago.wrap(OpenAI(api_key="none", base_url=url))
call = {"model": "gpt-5.5", "messages": [{"role": "user", "content": "hi"}]}

def leave(stream):
    for _ in stream:
        break
    stream.close()

cases = {
    "create": lambda: client.chat.completions.create(**call),
    "create, a stream to its end": lambda: list(client.chat.completions.create(**call, stream=True)),
    "create, a stream that is left": lambda: leave(client.chat.completions.create(**call, stream=True)),
    "parse": lambda: client.chat.completions.parse(**call),
    "with_options(timeout=5).create": lambda: client.with_options(timeout=5).chat.completions.create(**call),
}
print("lago-agent-sdk", version("lago-agent-sdk"), "openai", version("openai"))
seen = []
for name, run in cases.items():
    events.clear()
    run()
    lago.flush()
    seen.append(sum(int(event["properties"]["value"]) for event in events))
    print(f"{name:31} {seen[-1]} tokens billed")
if seen != [120, 120, 0, 0, 0]:
    sys.exit("CHANGED: other calls are billed")
PY
venv/bin/python try.py
