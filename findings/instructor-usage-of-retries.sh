#!/usr/bin/env bash
# instructor returns the last answer with the usage of all attempts in it.
# Guess:  the raw completion is what the provider answered: its usage is that of this one answer.
# Seen:   attempts of 1,000, 2,000 and 3,000 prompt tokens: the raw completion, under the id of the third, says 6,000.
#         A hook on each response sees each one: whoever meters there and at the end charges 12,000.
set -euo pipefail
tmp=$(mktemp -d); trap 'rm -rf "$tmp"' EXIT; cd "$tmp"
python3 -m venv venv
venv/bin/pip install --quiet --no-compile --disable-pip-version-check instructor==1.17.0 openai==3.3.0
cat >try.py <<'PY'
import json, sys, threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import version
import instructor
from openai import OpenAI
from pydantic import BaseModel

calls = 0

class Provider(BaseHTTPRequestHandler):
    """Answers with a word where a number is wanted, twice."""
    def do_POST(self):
        global calls
        calls += 1
        self.rfile.read(int(self.headers["content-length"]))
        content = '{"left": 7}' if calls == 3 else '{"left": "seven"}'
        body = json.dumps({
            "id": f"answer-{calls}", "object": "chat.completion", "created": 1, "model": "m",
            "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": content}}],
            "usage": {"prompt_tokens": 1000 * calls, "completion_tokens": 10, "total_tokens": 1000 * calls + 10},
        }).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass

class Stock(BaseModel):
    left: int

server = ThreadingHTTPServer(("127.0.0.1", 0), Provider)
threading.Thread(target=server.serve_forever, daemon=True).start()
client = instructor.from_openai(OpenAI(api_key="none", base_url=f"http://127.0.0.1:{server.server_port}/v1"), mode=instructor.Mode.JSON)
each = []
client.on("completion:response", lambda response: each.append(response.usage.prompt_tokens))
_, raw = client.chat.completions.create_with_completion(
    model="m", messages=[{"role": "user", "content": "How many are left?"}], response_model=Stock, max_retries=3)

print("instructor", version("instructor"))
print(f"prompt tokens of each answer {each}; returned completion {raw.id}: {raw.usage.prompt_tokens}")
if (each, raw.id, raw.usage.prompt_tokens) != ([1000, 2000, 3000], "answer-3", 6000):
    print("CHANGED: the usage of the returned completion is another")
    sys.exit(1)
PY
venv/bin/python try.py
