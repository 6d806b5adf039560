#!/usr/bin/env bash
# ai: the same answer counts 420 or 120 output tokens, depending on the provider package it was read with.
# Guess:  a vendor that speaks OpenAI's protocol can be read with @ai-sdk/openai; its total_tokens is kept.
# Seen:   xAI reports reasoning beside completion_tokens. @ai-sdk/xai counts 420 of 520 tokens as output; @ai-sdk/openai
#         counts 120, says 300 of these 120 were reasoning, and replaces the vendor's total of 520 by 220.
set -euo pipefail
tmp=$(mktemp -d); trap 'rm -rf "$tmp"' EXIT; cd "$tmp"
npm install --silent --no-audit --no-fund --ignore-scripts ai@7.0.173 @ai-sdk/openai@4.0.118 @ai-sdk/xai@4.0.59 >/dev/null
cat >try.mjs <<'JS'
import { generateText } from 'ai'
import { createOpenAI } from '@ai-sdk/openai'
import { createXai } from '@ai-sdk/xai'
import { readFileSync } from 'node:fs'

const usage = { prompt_tokens: 100, completion_tokens: 120, total_tokens: 520, completion_tokens_details: { reasoning_tokens: 300 } }
const fetch = async () => Response.json({
  id: 'c', object: 'chat.completion', created: 1, model: 'grok-4', usage,
  choices: [{ index: 0, finish_reason: 'stop', message: { role: 'assistant', content: 'Yes.' } }],
})
async function read(model) {
  const { usage: u } = await generateText({ model, prompt: 'Is it?' })
  return { output: u.outputTokens, reasoning: u.outputTokenDetails.reasoningTokens, text: u.outputTokenDetails.textTokens, total: u.totalTokens }
}

for (const p of ['ai', '@ai-sdk/openai', '@ai-sdk/xai']) {
  console.log(p, JSON.parse(readFileSync(`node_modules/${p}/package.json`)).version)
}
const xai = await read(createXai({ apiKey: 'none', fetch }).chat('grok-4'))
const openai = await read(createOpenAI({ apiKey: 'none', fetch }).chat('grok-4'))
console.log('vendor says', usage.total_tokens, 'in all')
console.log('@ai-sdk/xai   ', xai)
console.log('@ai-sdk/openai', openai)
if (xai.output !== 420 || xai.total !== 520 || openai.output !== 120 || openai.reasoning !== 300 || openai.total !== 220) {
  console.log('CHANGED: the two packages count in another way')
  process.exit(1)
}
JS
node try.mjs
