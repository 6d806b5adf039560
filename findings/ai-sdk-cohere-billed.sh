#!/usr/bin/env bash
# @ai-sdk/cohere reports the tokens that the model saw, not the tokens that Cohere bills.
# Guess:  usage is what the vendor charges for, as with every other provider package.
# Seen:   billed_units say 7 + 3 tokens, usage says 500 + 8; billed_units are only in usage.raw.
set -euo pipefail
tmp=$(mktemp -d); trap 'rm -rf "$tmp"' EXIT; cd "$tmp"
npm install --silent --no-audit --no-fund --ignore-scripts ai@7.0.173 @ai-sdk/cohere@4.0.52 >/dev/null
cat >try.mjs <<'JS'
import { generateText } from 'ai'
import { createCohere } from '@ai-sdk/cohere'
import { readFileSync } from 'node:fs'

const cohere = createCohere({
  apiKey: 'none',
  fetch: async () => Response.json({
    id: 'c', finish_reason: 'COMPLETE', message: { role: 'assistant', content: [{ type: 'text', text: 'Yes.' }] },
    usage: { billed_units: { input_tokens: 7, output_tokens: 3 }, tokens: { input_tokens: 500, output_tokens: 8 } },
  }),
})
const { usage } = await generateText({ model: cohere('command-a-03-2025'), prompt: 'Is it?' })

console.log('@ai-sdk/cohere', JSON.parse(readFileSync('node_modules/@ai-sdk/cohere/package.json')).version)
console.log(`usage: input ${usage.inputTokens}, output ${usage.outputTokens}, total ${usage.totalTokens}`)
console.log('usage.raw.billed_units:', usage.raw?.billed_units)
if (usage.inputTokens !== 500 || usage.outputTokens !== 8 || usage.raw?.billed_units?.input_tokens !== 7) {
  console.log('CHANGED: usage is counted in another way')
  process.exit(1)
}
JS
node try.mjs
