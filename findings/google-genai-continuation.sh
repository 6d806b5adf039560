#!/usr/bin/env bash
# @google/genai continues an answer by itself, and sends the same maxOutputTokens with each request.
# Guess:  maxOutputTokens of one generateContent bounds the output of that call, and promptTokenCount is one prompt.
# Seen:   maxOutputTokens 100, five requests with 100 each, 500 tokens of output, and a prompt of 1,000 tokens
#         reported as promptTokenCount 5,000.
set -euo pipefail
tmp=$(mktemp -d); trap 'rm -rf "$tmp"' EXIT; cd "$tmp"
npm install --silent --no-audit --no-fund --ignore-scripts @google/genai@3.3.0 >/dev/null
cat >try.mjs <<'JS'
import http from 'node:http'
import { GoogleGenAI } from '@google/genai'
import { readFileSync } from 'node:fs'

// A provider that ends four answers with finishReason CONTINUATION and a token to go on with.
const caps = []
const server = http.createServer((req, res) => {
  let body = ''
  req.on('data', (d) => (body += d)).on('end', () => {
    caps.push(JSON.parse(body).generationConfig?.maxOutputTokens)
    const end = caps.length < 5
      ? { finishReason: 'CONTINUATION', continuationToken: Buffer.from(`part ${caps.length}`).toString('base64') }
      : { finishReason: 'STOP' }
    res.setHeader('content-type', 'application/json')
    res.end(JSON.stringify({
      candidates: [{ content: { role: 'model', parts: [{ text: 'more ' }] }, ...end }],
      usageMetadata: { promptTokenCount: 1000, candidatesTokenCount: 100, totalTokenCount: 1100 },
    }))
  })
}).listen(0, '127.0.0.1')
await new Promise((done) => server.on('listening', done))

const ai = new GoogleGenAI({ apiKey: 'none', httpOptions: { baseUrl: `http://127.0.0.1:${server.address().port}` } })
const ask = { model: 'gemini-2.5-flash', contents: 'Tell me all of it.' }
const { usageMetadata: usage } = await ai.models.generateContent({ ...ask, config: { maxOutputTokens: 100 } })
const withDefault = [...caps]
caps.length = 0
await ai.models.generateContent({ ...ask, config: { maxOutputTokens: 100, automaticContinuation: false } })
const switchedOff = caps.length
server.close()

console.log('@google/genai', JSON.parse(readFileSync('node_modules/@google/genai/package.json')).version)
console.log(`maxOutputTokens of each request: ${withDefault}`)
console.log(`reported: prompt ${usage.promptTokenCount}, output ${usage.candidatesTokenCount}`)
console.log(`requests with automaticContinuation false: ${switchedOff}`)
const same = withDefault.join() === '100,100,100,100,100' && usage.promptTokenCount === 5000 &&
  usage.candidatesTokenCount === 500 && switchedOff === 1
if (!same) {
  console.log('CHANGED: maxOutputTokens, the reported usage or the default is another')
  process.exit(1)
}
JS
node try.mjs
