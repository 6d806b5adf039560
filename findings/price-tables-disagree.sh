#!/usr/bin/env bash
# Three current price tables charge the same request differently: at the edge of a tier, above it, and for an alias.
# Guess:  genai-prices is one table in two languages; litellm agrees with it on list prices of well-known models.
# Seen:   gpt-5.5 with 272,000 input tokens is 2.72 USD by the JavaScript release and 1.36 by Python's and litellm's;
#         claude-sonnet-4-5 above 200,000 doubles in one and not in the other; mistral-large-latest differs by 4.
set -euo pipefail
tmp=$(mktemp -d); trap 'rm -rf "$tmp"' EXIT; cd "$tmp"
npm install --silent --no-audit --no-fund --ignore-scripts @pydantic/genai-prices@0.1.8 >/dev/null
python3 -m venv venv
venv/bin/pip install --quiet --no-compile --disable-pip-version-check genai-prices==0.2.3 litellm==1.110.2
cat >try.mjs <<'JS'
import { calcPrice } from '@pydantic/genai-prices'
for (const line of process.argv.slice(2)) {
  const [model, provider, tokens] = line.split(',')
  const { total_price } = calcPrice({ input_tokens: Number(tokens), output_tokens: 0 }, model, { providerId: provider })
  console.log(total_price.toFixed(6))
}
JS
cat >try.py <<'PY'
import os, sys
from importlib.metadata import version
os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # the prices of this release, not of today
from genai_prices import Usage, calc_price
from litellm import cost_per_token

NAMES = {"mistral-large-latest": "mistral/mistral-large-latest", "grok-4.3": "xai/grok-4.3"}
javascript = sys.argv[1].split()
print(f"{'USD for input tokens alone':34} js {os.environ['JS']:9} py {version('genai-prices'):9} litellm {version('litellm')}")
for price, line in zip(javascript, sys.argv[2:]):
    model, provider, tokens = line.split(",")
    python = calc_price(Usage(input_tokens=int(tokens), output_tokens=0), model_ref=model, provider_id=provider).total_price
    lite = sum(cost_per_token(model=NAMES.get(model, model), prompt_tokens=int(tokens), completion_tokens=0))
    print(f"{model:22} {tokens:>11} {price:>12} {python:>12.6f} {lite:>12.6f}")
PY
cases=(gpt-5.5,openai,271999 gpt-5.5,openai,272000 gpt-5.5,openai,272001 claude-sonnet-4-5,anthropic,200001
  grok-4.3,x-ai,200000 mistral-large-latest,mistral,1000000)
JS=$(node -p "JSON.parse(require('fs').readFileSync('node_modules/@pydantic/genai-prices/package.json')).version")
export JS
venv/bin/python try.py "$(node try.mjs "${cases[@]}")" "${cases[@]}" | tee seen
sed -n '2,$p' seen | tr -s ' ' >lines
cat >expected <<'TXT'
gpt-5.5 271999 1.359995 1.359995 1.359995
gpt-5.5 272000 2.720000 1.360000 1.360000
gpt-5.5 272001 2.720010 2.720010 2.720010
claude-sonnet-4-5 200001 1.200006 1.200006 0.600003
grok-4.3 200000 0.500000 0.500000 0.500000
mistral-large-latest 1000000 2.000000 2.000000 0.500000
TXT
cmp -s lines expected || { echo 'CHANGED: the tables agree, or disagree elsewhere'; exit 1; }
