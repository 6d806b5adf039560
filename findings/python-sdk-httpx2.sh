#!/usr/bin/env bash
# Python SDKs of model providers: three are built on httpx2 now, and only two of them still take a client of httpx.
# Guess:  http_client and httpx_client take an httpx.Client, as their documents and years of examples show.
# Seen:   openai and google-genai take it and send through its transport; anthropic raises a TypeError that names httpx2.Client.
#         A transport or a client of httpx that is shared by all three has to exist twice.
set -euo pipefail
tmp=$(mktemp -d); trap 'rm -rf "$tmp"' EXIT; cd "$tmp"
python3 -m venv venv
venv/bin/pip install --quiet --no-compile --disable-pip-version-check openai==3.57.0 anthropic==2.14.0 google-genai==3.6.1 httpx==0.28.1 httpx2==2.16.2
cat >try.py <<'PY'
import sys
from importlib.metadata import version
import anthropic, httpx, httpx2, openai
from google import genai

makers = {
    "openai": lambda client: openai.OpenAI(api_key="k", http_client=client),
    "anthropic": lambda client: anthropic.Anthropic(api_key="k", http_client=client),
    "google-genai": lambda client: genai.Client(api_key="k", http_options={"httpx_client": client}),
}

def taken(make, client):
    try:
        make(client)
        return True
    except TypeError:
        return False

seen = {name: (taken(make, httpx.Client()), taken(make, httpx2.Client())) for name, make in makers.items()}
print("Python", sys.version.split()[0], *(f"{name} {version(name)}" for name in [*makers, "httpx", "httpx2"]))
for name, (old, new) in seen.items():
    print(f"{name}: takes a client of httpx {old}, of httpx2 {new}")
if seen != {"openai": (True, True), "anthropic": (False, True), "google-genai": (True, True)}:
    sys.exit("CHANGED: other clients are taken")
PY
venv/bin/python try.py
