#!/usr/bin/env bash
# @ai-sdk/anthropic adds the thinking budget on top of maxOutputTokens.
# Guess:  maxOutputTokens is sent as max_tokens, which for Anthropic covers thinking and text together.
# Seen:   maxOutputTokens 1,000 with a thinking budget of 5,000 sends max_tokens 6,000, without a warning.
#         Without maxOutputTokens it sends the model's own maximum, and 128,000 for a model it does not know.
set -euo pipefail
tmp=$(mktemp -d); trap 'rm -rf "$tmp"' EXIT; cd "$tmp"
npm install --silent --no-audit --no-fund --ignore-scripts ai@7.0.173 @ai-sdk/anthropic@4.0.105 >/dev/null
cat >try.mjs <<'JS'
import { generateText } from 'ai'
import { createAnthropic } from '@ai-sdk/anthropic'
import { readFileSync } from 'node:fs'

globalThis.AI_SDK_LOG_WARNINGS = false
let sent
const anthropic = createAnthropic({
  apiKey: 'none',
  fetch: async (_, init) => {
    sent = JSON.parse(init.body)
    return Response.json({
      id: 'm', type: 'message', role: 'assistant', model: sent.model, content: [{ type: 'text', text: 'Yes.' }],
      stop_reason: 'end_turn', stop_sequence: null, usage: { input_tokens: 10, output_tokens: 5 },
    })
  },
})
async function maxTokens(model, maxOutputTokens, thinking) {
  const { warnings } = await generateText({
    model: anthropic(model), prompt: 'Is it?', maxOutputTokens, providerOptions: { anthropic: thinking ? { thinking } : {} },
  })
  return [sent.max_tokens, warnings?.length ?? 0]
}

const version = (p) => JSON.parse(readFileSync(`node_modules/${p}/package.json`)).version
console.log('ai', version('ai'), '@ai-sdk/anthropic', version('@ai-sdk/anthropic'))
const [thinking, warned] = await maxTokens('claude-sonnet-4-5', 1000, { type: 'enabled', budgetTokens: 5000 })
const [plain] = await maxTokens('claude-sonnet-4-5', 1000)
const [unset] = await maxTokens('claude-sonnet-4-5')
const [unknown] = await maxTokens('claude-of-next-year')
console.log(`maxOutputTokens 1000, thinking budget 5000 -> max_tokens ${thinking}, warnings ${warned}`)
console.log(`maxOutputTokens 1000 -> max_tokens ${plain}`)
console.log(`maxOutputTokens not set -> max_tokens ${unset}; for an unknown model ${unknown}`)
if (thinking !== 6000 || warned !== 0 || plain !== 1000 || unset !== 64000 || unknown !== 128000) {
  console.log('CHANGED: max_tokens is computed in another way')
  process.exit(1)
}
JS
node try.mjs
