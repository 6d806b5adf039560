#!/usr/bin/env bash
# litellm: a stream that its reader leaves is in no log: its callbacks hear of no success and of no failure.
# Guess:  a callback hears once of each call that reached the provider, with what is known of its usage.
# Seen:   after a `break`, after aclose() and after a cancelled task there is no event at all, in the library and in its router,
#         although the provider wrote and bills 500 tokens; a `break` alone lets it write them to the end. A stream that is read to the
#         end has its success event, with the usage.
set -euo pipefail
tmp=$(mktemp -d); trap 'rm -rf "$tmp"' EXIT; cd "$tmp"
python3 -m venv venv
venv/bin/pip install --quiet --no-compile --disable-pip-version-check litellm==1.110.2
cat >try.py <<'PY'
import asyncio, json, os, sys, threading, time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import version
os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # the prices of this release, not of today
import litellm
from litellm.integrations.custom_logger import CustomLogger

written = []

class Provider(BaseHTTPRequestHandler):
    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.end_headers()
        chunk = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "gpt-4o"}
        choice = {"index": 0, "delta": {"role": "assistant", "content": "word "}, "finish_reason": None}
        chunks = [{**chunk, "choices": [choice]}] * 20 + [
            {**chunk, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]},
            {**chunk, "choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 500, "total_tokens": 509}}]
        try:
            for one in chunks:
                self.wfile.write(f"data: {json.dumps(one)}\n\n".encode())
                time.sleep(0.02)
            self.wfile.write(b"data: [DONE]\n\n")
            written.append("all")
        except OSError:
            written.append("cut")
    def log_message(self, *_):
        pass

events = []

class Log(CustomLogger):
    async def async_log_success_event(self, kwargs, response_obj, start_time, end_time):
        events.append(("success", response_obj.usage.completion_tokens))
    async def async_log_failure_event(self, kwargs, response_obj, start_time, end_time):
        events.append(("failure", None))

litellm.callbacks = [Log()]
server = ThreadingHTTPServer(("127.0.0.1", 0), Provider)
threading.Thread(target=server.serve_forever, daemon=True).start()
params = {"model": "openai/gpt-4o", "api_base": f"http://127.0.0.1:{server.server_port}/v1", "api_key": "none"}
router = litellm.Router(model_list=[{"model_name": "chat", "litellm_params": params}])
ask = {"messages": [{"role": "user", "content": "Is it?"}], "stream": True, "stream_options": {"include_usage": True}}
callers = {"library": lambda: litellm.acompletion(**params, **ask), "router": lambda: router.acompletion(model="chat", **ask)}

async def read(call, how):
    stream, chunks = await call(), 0
    async for _ in stream:
        chunks += 1
        if chunks == 3 and how == "cancelled":
            asyncio.current_task().cancel()
        elif chunks == 3 and how in ("left", "closed"):
            break
    if how == "closed":
        await stream.aclose()
    return stream

async def main():
    seen = {}
    for who, call in callers.items():
        for how in ("read", "left", "closed", "cancelled"):
            events.clear(), written.clear()
            task = asyncio.create_task(read(call, how))
            await asyncio.wait([task])
            for _ in range(40):  # until the provider has ended, and two seconds for the callbacks
                await asyncio.sleep(0.05)
            seen[who, how] = (written[:], events[:])
    return seen

seen = asyncio.run(main())
print("litellm", version("litellm"))
for case, (provider, heard) in seen.items():
    print(*case, "| the provider wrote:", *provider, "| events:", heard)
expected = {"read": [("success", 500)], "left": [], "closed": [], "cancelled": []}
if any(heard != expected[how] for (_, how), (_, heard) in seen.items()):
    sys.exit("CHANGED: a stream that was left has an event")
if any(provider != ["all"] for (_, how), (provider, _) in seen.items() if how in ("read", "left")):
    sys.exit("CHANGED: break stops the provider")
PY
venv/bin/python try.py
