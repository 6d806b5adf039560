#!/usr/bin/env bash
# ai: embedMany splits its values into several requests; when one fails, the usage of the others is gone.
# Guess:  the error carries the results or the usage of the batches that succeeded and were billed.
# Seen:   two batches of 100,000 tokens answered, the third refused: one APICallError about the third request,
#         nothing about the 200,000 tokens, and no callback at the call. Only a middleware around the model sees them.
set -euo pipefail
tmp=$(mktemp -d); trap 'rm -rf "$tmp"' EXIT; cd "$tmp"
npm install --silent --no-audit --no-fund --ignore-scripts ai@7.0.173 @ai-sdk/openai@4.0.118 >/dev/null
cat >try.mjs <<'JS'
import { embedMany, wrapEmbeddingModel } from 'ai'
import { createOpenAI } from '@ai-sdk/openai'
import { readFileSync } from 'node:fs'

let requests = 0
const openai = createOpenAI({
  apiKey: 'none',
  fetch: async (_, init) => {
    requests++
    if (requests > 2) return Response.json({ error: { message: 'Input too long.', type: 'invalid_request_error' } }, { status: 400 })
    const { input } = JSON.parse(init.body)
    return Response.json({
      object: 'list', model: 'm', data: input.map((_, index) => ({ object: 'embedding', index, embedding: [1] })),
      usage: { prompt_tokens: 100000, total_tokens: 100000 },
    })
  },
})
let metered = 0
const model = wrapEmbeddingModel({
  model: openai.embedding('text-embedding-3-small'),
  middleware: {
    specificationVersion: 'v4',
    wrapEmbed: async ({ doEmbed }) => {
      const result = await doEmbed()
      metered += result.usage.tokens
      return result
    },
  },
})
const values = Array.from({ length: 5000 }, (_, i) => `document ${i}`)
const error = await embedMany({ model, values, maxParallelCalls: 1 }).then(() => { throw new Error('no error') }, (e) => e)

console.log('ai', JSON.parse(readFileSync('node_modules/ai/package.json')).version)
console.log(`${requests} requests, error ${error.name} with fields ${Object.keys(error)}`)
console.log(`tokens billed 200000, seen by a middleware ${metered}, in the error ${JSON.stringify(error).includes('100000')}`)
if (requests !== 3 || metered !== 200000 || JSON.stringify(error).includes('100000')) {
  console.log('CHANGED: the error says what was used, or the requests are cut in another way')
  process.exit(1)
}
JS
node try.mjs
