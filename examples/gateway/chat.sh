#!/bin/sh
# Asks a model through `earmark gateway`, with a key of Earmark in EARMARK_API_KEY.
set -eu
curl --silent --show-error --no-buffer "${GATEWAY_URL:-http://127.0.0.1:8081}/v1/chat/completions" \
  --header "Authorization: Bearer $EARMARK_API_KEY" \
  --header 'Content-Type: application/json' \
  --header 'Earmark-Scope: acme/ml' \
  --data '{"model": "gpt-5", "max_tokens": 100, "stream": true, "messages": [{"role": "user", "content": "Count."}]}'
