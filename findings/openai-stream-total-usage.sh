#!/usr/bin/env bash
# openai: totalUsage() of a stream answers zero when the usage is unknown.
# Guess:  the streaming helper, which offers totalUsage(), asks for usage; or totalUsage() is undefined without it.
# Seen:   chat.completions.stream() sends no stream_options, and totalUsage() is 0, 0, 0: a number that can be charged.
#         The same answer has usage undefined in finalChatCompletion().
set -euo pipefail
tmp=$(mktemp -d); trap 'rm -rf "$tmp"' EXIT; cd "$tmp"
npm install --silent --no-audit --no-fund --ignore-scripts openai@7.59.0 >/dev/null
cat >try.mjs <<'JS'
import OpenAI from 'openai'
import { readFileSync } from 'node:fs'

// A provider that reports usage when it is asked to, as the protocol says.
const chunk = (choices, usage) => ({ id: 'c', object: 'chat.completion.chunk', created: 1, model: 'm', choices, usage })
let options
const client = new OpenAI({
  apiKey: 'none',
  fetch: async (_, init) => {
    options = JSON.parse(init.body).stream_options
    const events = [
      chunk([{ index: 0, delta: { role: 'assistant', content: 'Yes.' }, finish_reason: null }]),
      chunk([{ index: 0, delta: {}, finish_reason: 'stop' }]),
      ...(options?.include_usage ? [chunk([], { prompt_tokens: 5000, completion_tokens: 7, total_tokens: 5007 })] : []),
    ]
    const text = events.map((e) => `data: ${JSON.stringify(e)}\n\n`).join('') + 'data: [DONE]\n\n'
    return new Response(text, { headers: { 'content-type': 'text/event-stream' } })
  },
})
const ask = { model: 'm', messages: [{ role: 'user', content: 'Is it?' }] }

console.log('openai', JSON.parse(readFileSync('node_modules/openai/package.json')).version)
const plain = client.chat.completions.stream(ask)
const total = await plain.totalUsage()
const final = (await plain.finalChatCompletion()).usage
console.log('stream_options', options, 'totalUsage', total, 'final usage', final)
const asked = await client.chat.completions.stream({ ...ask, stream_options: { include_usage: true } }).totalUsage()
console.log('with include_usage: totalUsage', asked)
if (total?.total_tokens !== 0 || final !== undefined || asked.total_tokens !== 5007) {
  console.log('CHANGED: unknown usage is no longer zero')
  process.exit(1)
}
JS
node try.mjs
