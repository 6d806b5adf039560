#!/usr/bin/env bash
# httpx: each client, and each call of httpx.get, reads and parses all certificates of the system's authorities again.
# Guess:  the trust store is read once in a process, or when the first https URL is asked.
# Seen:   ten clients load it ten times, before any request and for http URLs as well; ten calls of httpx.get ten times more. One
#         context for all (verify=) loads it once.
set -euo pipefail
tmp=$(mktemp -d); trap 'rm -rf "$tmp"' EXIT; cd "$tmp"
python3 -m venv venv
venv/bin/pip install --quiet --no-compile --disable-pip-version-check httpx==0.28.1
cat >try.py <<'PY'
import ssl, sys, threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib.metadata import version
import httpx

loads = 0
load = ssl.SSLContext.load_verify_locations

def counting(context, *args, **kwargs):
    global loads
    loads += 1
    return load(context, *args, **kwargs)

ssl.SSLContext.load_verify_locations = counting

class Server(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(204)
        self.end_headers()
    def log_message(self, *_):
        pass

server = HTTPServer(("127.0.0.1", 0), Server)
threading.Thread(target=server.serve_forever, daemon=True).start()
url = f"http://127.0.0.1:{server.server_port}"

def counted(work):
    before = loads
    for _ in range(10):
        work()
    return loads - before

clients = counted(lambda: httpx.Client(base_url=url).close())
calls = counted(lambda: httpx.get(url))
shared = ssl.create_default_context()
reused = counted(lambda: httpx.Client(base_url=url, verify=shared).close())
server.shutdown()
print("httpx", version("httpx"), "Python", sys.version.split()[0])
print("loads of the trust store: ten clients", clients, "- ten calls of httpx.get", calls, "- ten clients that share a context", reused)
if (clients, calls, reused) != (10, 10, 0):
    sys.exit("CHANGED: the trust store is loaded at other moments")
PY
venv/bin/python try.py
