#!/usr/bin/env bash
# tokenlens charges cached input twice, and prices a model that it has no price for at 0.
# Guess:  the usage of an AI SDK call goes in as it is; cached tokens cost the cached rate; an unknown price is undefined.
# Seen:   10,000 input tokens, 9,000 of them cached: the 9,000 are charged at the full and at the cached rate, 0.0236 USD
#         for 0.0124. gpt-4o costs 0. With the usage object of ai 6 and 7 the cache is not seen at all.
set -euo pipefail
tmp=$(mktemp -d); trap 'rm -rf "$tmp"' EXIT; cd "$tmp"
npm install --silent --no-audit --no-fund --ignore-scripts tokenlens@1.3.1 >/dev/null
cat >try.mjs <<'JS'
import { estimateCost } from 'tokenlens'
import { readFileSync } from 'node:fs'

const v5 = { inputTokens: 10000, cachedInputTokens: 9000, outputTokens: 1000, totalTokens: 11000 }
const v7 = { inputTokens: 10000, inputTokenDetails: { noCacheTokens: 1000, cacheReadTokens: 9000 }, outputTokens: 1000, totalTokens: 11000 }
const price = (modelId, usage) => estimateCost({ modelId, usage }).totalUSD

// The package's own prices of openai/gpt-5, USD for 1,000,000 tokens: input 1.25, cached 0.125, output 10.
const right = (1000 * 1.25 + 9000 * 0.125 + 1000 * 10) / 1e6
const seen = { v5: price('openai/gpt-5', v5), v7: price('openai/gpt-5', v7), unpriced: price('openai/gpt-4o', v5) }

console.log('tokenlens', JSON.parse(readFileSync('node_modules/tokenlens/package.json')).version)
console.log('openai/gpt-5, USD: right', right, 'usage of ai 5', seen.v5, 'usage of ai 6 and 7', seen.v7)
console.log('openai/gpt-4o, USD:', seen.unpriced)
if (Math.abs(seen.v5 - 0.023625) > 1e-9 || Math.abs(seen.v7 - 0.0225) > 1e-9 || seen.unpriced !== 0) {
  console.log('CHANGED: the cost is computed in another way')
  process.exit(1)
}
JS
node try.mjs
