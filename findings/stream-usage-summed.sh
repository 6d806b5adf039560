#!/usr/bin/env bash
# langchain-openai and pydantic-ai add up running totals when a vendor reports usage in every chunk of a stream.
# Guess:  usage in a chunk replaces the one before, since it is a running total (vLLM: continuous_usage_stats).
# Seen:   chunks with 1,000 input tokens and 1, 2, 3 output tokens: the provider means 1,000 and 3;
#         langchain-openai and pydantic-ai report 3,000 and 6. A long answer multiplies its prompt by its chunks.
set -euo pipefail
tmp=$(mktemp -d); trap 'rm -rf "$tmp"' EXIT; cd "$tmp"
python3 -m venv venv
venv/bin/pip install --quiet --no-compile --disable-pip-version-check langchain-core==1.8.3 langchain-openai==1.7.4
python3 -m venv venv2
venv2/bin/pip install --quiet --no-compile --disable-pip-version-check 'pydantic-ai-slim[openai]==2.66.0'
cat >provider.py <<'PY'
import json, threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

class Provider(BaseHTTPRequestHandler):
    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.end_headers()
        for n, word in enumerate(["It", " is", "."], start=1):
            chunk = {
                "id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m",
                "choices": [{"index": 0, "delta": {"role": "assistant", "content": word}, "finish_reason": "stop" if n == 3 else None}],
                "usage": {"prompt_tokens": 1000, "completion_tokens": n, "total_tokens": 1000 + n},
            }
            self.wfile.write(f"data: {json.dumps(chunk)}\n\n".encode())
        self.wfile.write(b"data: [DONE]\n\n")

    def log_message(self, *_):
        pass

server = ThreadingHTTPServer(("127.0.0.1", 0), Provider)
threading.Thread(target=server.serve_forever, daemon=True).start()
URL = f"http://127.0.0.1:{server.server_port}/v1"
PY
cat >lang.py <<'PY'
from importlib.metadata import version
from provider import URL
from langchain_openai import ChatOpenAI
message = None
for chunk in ChatOpenAI(model="m", api_key="none", base_url=URL).stream("Is it?"):
    message = chunk if message is None else message + chunk
usage = message.usage_metadata
print("langchain-openai", version("langchain-openai"), "input", usage["input_tokens"], "output", usage["output_tokens"])
PY
cat >pydantic.try.py <<'PY'
import asyncio
from importlib.metadata import version
from provider import URL
from pydantic_ai import Agent
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider
async def main():
    agent = Agent(OpenAIChatModel("m", provider=OpenAIProvider(base_url=URL, api_key="none")))
    async with agent.run_stream("Is it?") as result:
        async for _ in result.stream_text():
            pass
        print("pydantic-ai", version("pydantic-ai-slim"), "input", result.usage.input_tokens, "output", result.usage.output_tokens)
asyncio.run(main())
PY
{ venv/bin/python lang.py; venv2/bin/python pydantic.try.py; } | tee seen
[[ $(grep -c 'input 3000 output 6$' seen) == 2 ]] || { echo 'CHANGED: running totals are not added up'; exit 1; }
