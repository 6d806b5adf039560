#!/usr/bin/env bash
# LiteLLM's router: an answer 402 takes the deployment out of use for everyone, a 403 does not.
# Guess:  a 402 is the caller's own matter, as 400 and 403 are, and the next caller reaches the deployment.
# Seen:   with two deployments, two answers of 402 leave none: the next call fails without a request. After two of 403 it is
#         answered. So a limit of one customer that is answered by 402 stops all customers for the cooldown.
set -euo pipefail
tmp=$(mktemp -d); trap 'rm -rf "$tmp"' EXIT; cd "$tmp"
python3 -m venv venv
venv/bin/pip install --quiet --no-compile --disable-pip-version-check litellm==1.110.2
cat >try.py <<'PY'
import json, os, sys, threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib.metadata import version
os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
from litellm import Router

status, requests = 402, 0

class Provider(BaseHTTPRequestHandler):
    def do_POST(self):
        global requests
        requests += 1
        self.rfile.read(int(self.headers["Content-Length"]))
        if status == 200:
            body = {"id": "c", "object": "chat.completion", "created": 1, "model": "m",
                    "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hi"}, "finish_reason": "stop"}],
                    "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}}
        else:
            body = {"error": {"message": "The budget of this customer is used up.", "type": "budget_exceeded", "code": "budget_exceeded"}}
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)
    def log_message(self, *_):
        pass

server = HTTPServer(("127.0.0.1", 0), Provider)
threading.Thread(target=server.serve_forever, daemon=True).start()
base = f"http://127.0.0.1:{server.server_port}/v1"

def after(refusal):
    """Two refused calls, then one that the provider would answer: did it reach the provider, and how did it end?"""
    global status, requests
    deployments = [{"model_name": "m", "litellm_params": {"model": "openai/m", "api_base": base, "api_key": "k", "max_retries": 0}} for _ in range(2)]
    router = Router(model_list=deployments, num_retries=0)
    ask = lambda: router.completion(model="m", messages=[{"role": "user", "content": "Hi"}])
    status = refusal
    for _ in range(2):
        try:
            ask()
        except Exception:
            pass
    status, requests = 200, 0
    try:
        ask()
        return requests, "answered"
    except Exception as error:
        return requests, type(error).__name__

print("litellm", version("litellm"))
seen = {code: after(code) for code in (402, 403)}
print("requests of the next caller, and its end:", seen)
server.shutdown()
if seen[402][0] != 0 or seen[402][1] == "answered" or seen[403] != (1, "answered"):
    sys.exit("CHANGED: other statuses take a deployment out of use")
PY
venv/bin/python try.py
