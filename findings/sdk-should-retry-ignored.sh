#!/usr/bin/env bash
# LangChain.js and @google/genai: a 503 is asked again although the answer says `x-should-retry: false`.
# Guess:  LangChain uses the SDKs of OpenAI and Anthropic, so the header that stops those stops LangChain's retries as well.
# Seen:   openai and @anthropic-ai/sdk send one request. LangChain switches their retries off and does its own, which do not look at the
#         header: two requests with maxRetries 1. @google/genai with retryOptions sends as many as it has attempts.
set -euo pipefail
tmp=$(mktemp -d); trap 'rm -rf "$tmp"' EXIT; cd "$tmp"
npm install --silent --no-audit --no-fund --ignore-scripts openai@7.59.0 @anthropic-ai/sdk@1.14.0 @google/genai@3.3.0 \
  @langchain/core@1.4.0 @langchain/openai@1.6.0 @langchain/anthropic@1.5.11 >/dev/null
cat >try.mjs <<'JS'
import http from 'node:http'
import { readFileSync } from 'node:fs'
import OpenAI from 'openai'
import Anthropic from '@anthropic-ai/sdk'
import { GoogleGenAI } from '@google/genai'
import { ChatOpenAI } from '@langchain/openai'
import { ChatAnthropic } from '@langchain/anthropic'

let requests = 0
const server = http.createServer((req, res) => {
  req.resume().on('end', () => {
    requests++
    res.writeHead(503, { 'content-type': 'application/json', 'x-should-retry': 'false' })
    res.end(JSON.stringify({ error: { message: 'the budget service is away', type: 'gateway' } }))
  })
}).listen(0, '127.0.0.1')
await new Promise((done) => server.on('listening', done))
const url = `http://127.0.0.1:${server.address().port}`, apiKey = 'none', model = 'm'
const messages = [{ role: 'user', content: 'Is it?' }]
const retryOptions = { attempts: 2 }
const clients = {
  openai: () => new OpenAI({ apiKey, baseURL: url, maxRetries: 1 }).chat.completions.create({ model, messages }),
  '@anthropic-ai/sdk': () => new Anthropic({ apiKey, baseURL: url, maxRetries: 1 }).messages.create({ model, max_tokens: 9, messages }),
  '@langchain/openai': () => new ChatOpenAI({ apiKey, model, maxRetries: 1, configuration: { baseURL: url } }).invoke('Is it?'),
  '@langchain/anthropic': () => new ChatAnthropic({ apiKey, model, maxRetries: 1, anthropicApiUrl: url }).invoke('Is it?'),
  '@google/genai': () => new GoogleGenAI({ apiKey, httpOptions: { baseUrl: url, retryOptions } }).models.generateContent({ model, contents: 'Is it?' }),
}
const EXPECTED = { openai: 1, '@anthropic-ai/sdk': 1, '@langchain/openai': 2, '@langchain/anthropic': 2, '@google/genai': 2 }
console.log('requests for one call with one retry, each answered 503 with x-should-retry: false')
let changed = false
for (const [name, call] of Object.entries(clients)) {
  requests = 0
  await call().then(() => { throw new Error('no error') }, () => {})
  console.log(`${name} ${JSON.parse(readFileSync(`node_modules/${name}/package.json`)).version}: ${requests}`)
  changed ||= requests !== EXPECTED[name]
}
server.close()
if (changed) { console.log('CHANGED: other clients look at x-should-retry'); process.exit(1) }
JS
node try.mjs
