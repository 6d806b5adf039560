#!/usr/bin/env bash
# Vendors' SDKs: which refusals of a gateway are asked again, inside one call of the caller.
# Guess:  a 4xx other than 429 is final, and 429 and 503 are tried again by every SDK.
# Seen:   409 is sent three times by openai, @anthropic-ai/sdk and ai; 429 and 503 once by @google/genai and Mistral;
#         402 and 403 once by all. A conflict about an idempotency key that is answered 409 is not heard the first time.
set -euo pipefail
tmp=$(mktemp -d); trap 'rm -rf "$tmp"' EXIT; cd "$tmp"
npm install --silent --no-audit --no-fund --ignore-scripts openai@7.59.0 @anthropic-ai/sdk@1.14.0 @google/genai@3.3.0 \
  ai@7.0.173 @ai-sdk/openai@4.0.118 @mistralai/mistralai@2.7.0 cohere-ai@8.1.0 >/dev/null
cat >try.mjs <<'JS'
import http from 'node:http'
import { readFileSync } from 'node:fs'
import OpenAI from 'openai'
import Anthropic from '@anthropic-ai/sdk'
import { GoogleGenAI } from '@google/genai'
import { generateText } from 'ai'
import { createOpenAI } from '@ai-sdk/openai'
import { Mistral } from '@mistralai/mistralai'
import { CohereClientV2 } from 'cohere-ai'

let requests = 0, status
const server = http.createServer((req, res) => {
  req.resume().on('end', () => {
    requests++
    res.writeHead(status, { 'content-type': 'application/json', 'retry-after-ms': '1', 'retry-after': '0' })
    res.end(JSON.stringify({ error: { message: 'refused', type: 'gateway' } }))
  })
}).listen(0, '127.0.0.1')
await new Promise((done) => server.on('listening', done))
const url = `http://127.0.0.1:${server.address().port}`, apiKey = 'none', model = 'm'
const messages = [{ role: 'user', content: 'Is it?' }]
const clients = {
  openai: () => new OpenAI({ apiKey, baseURL: url }).chat.completions.create({ model, messages }),
  '@anthropic-ai/sdk': () => new Anthropic({ apiKey, baseURL: url }).messages.create({ model, max_tokens: 9, messages }),
  ai: () => generateText({ model: createOpenAI({ apiKey, baseURL: url }).chat(model), prompt: 'Is it?' }),
  'cohere-ai': () => new CohereClientV2({ token: apiKey, environment: url }).chat({ model, messages }),
  '@google/genai': () => new GoogleGenAI({ apiKey, httpOptions: { baseUrl: url } }).models.generateContent({ model, contents: 'Is it?' }),
  '@mistralai/mistralai': () => new Mistral({ apiKey, serverURL: url }).chat.complete({ model, messages }),
}
const EXPECTED = {
  openai: '1 1 3 3 3', '@anthropic-ai/sdk': '1 1 3 3 3', ai: '1 1 3 3 3',
  'cohere-ai': '1 1 1 3 3', '@google/genai': '1 1 1 1 1', '@mistralai/mistralai': '1 1 1 1 1',
}
const STATUSES = [402, 403, 409, 429, 503]
console.log('requests for one call, answered', STATUSES.join(' '))
let changed = false
for (const [name, call] of Object.entries(clients)) {
  const seen = []
  for (status of STATUSES) {
    requests = 0
    await call().then(() => { throw new Error('no error') }, () => {})
    seen.push(requests)
  }
  console.log(`${name} ${JSON.parse(readFileSync(`node_modules/${name}/package.json`)).version}: ${seen.join(' ')}`)
  changed ||= seen.join(' ') !== EXPECTED[name]
}
server.close()
if (changed) { console.log('CHANGED: other answers are asked again'); process.exit(1) }
JS
node try.mjs
