#!/usr/bin/env bash
# @ai-sdk/openai-compatible does not ask for usage when it streams; @ai-sdk/openai does.
# Guess:  both send stream_options.include_usage, since they speak the same protocol and report the same usage object.
# Seen:   through openai-compatible every stream ends normally with undefined usage, unless includeUsage is set.
set -euo pipefail
tmp=$(mktemp -d); trap 'rm -rf "$tmp"' EXIT; cd "$tmp"
npm install --silent --no-audit --no-fund --ignore-scripts \
  ai@7.0.173 @ai-sdk/openai@4.0.118 @ai-sdk/openai-compatible@3.0.92 >/dev/null
cat >try.mjs <<'JS'
import { streamText } from 'ai'
import { createOpenAI } from '@ai-sdk/openai'
import { createOpenAICompatible } from '@ai-sdk/openai-compatible'
import { readFileSync } from 'node:fs'

// A provider that reports usage when it is asked to, as the protocol says.
const chunk = (choices, usage) => ({ id: 'c', object: 'chat.completion.chunk', created: 1, model: 'm', choices, usage })
async function provider(_, init) {
  const events = [
    chunk([{ index: 0, delta: { role: 'assistant', content: 'Yes.' }, finish_reason: null }]),
    chunk([{ index: 0, delta: {}, finish_reason: 'stop' }]),
  ]
  if (JSON.parse(init.body).stream_options?.include_usage) {
    events.push(chunk([], { prompt_tokens: 5000, completion_tokens: 7, total_tokens: 5007 }))
  }
  const text = events.map((e) => `data: ${JSON.stringify(e)}\n\n`).join('') + 'data: [DONE]\n\n'
  return new Response(text, { headers: { 'content-type': 'text/event-stream' } })
}
async function tokens(model) {
  const result = streamText({ model, prompt: 'Is it?' })
  for await (const _ of result.textStream);
  return [await result.finishReason, (await result.usage).totalTokens].join(' ')
}

const vendor = { name: 'vendor', baseURL: 'http://vendor.test/v1', apiKey: 'none', fetch: provider }
const seen = {
  openai: await tokens(createOpenAI({ apiKey: 'none', fetch: provider }).chat('m')),
  'openai-compatible': await tokens(createOpenAICompatible(vendor)('m')),
  'openai-compatible, includeUsage': await tokens(createOpenAICompatible({ ...vendor, includeUsage: true })('m')),
}
for (const p of ['ai', '@ai-sdk/openai', '@ai-sdk/openai-compatible']) {
  console.log(p, JSON.parse(readFileSync(`node_modules/${p}/package.json`)).version)
}
console.log('finish reason and total tokens:', seen)
if (Object.values(seen).join('|') !== 'stop 5007|stop |stop 5007') {
  console.log('CHANGED: a stream of openai-compatible reports usage by default')
  process.exit(1)
}
JS
node try.mjs
