#!/usr/bin/env bash
# @google/genai runs the tool loop itself and returns the usage of the last model call alone.
# Guess:  usageMetadata covers all the model calls that one generateContent made, as its own continuation does.
# Seen:   four model calls, 10,000 prompt tokens billed; usageMetadata says 4,000.
set -euo pipefail
tmp=$(mktemp -d); trap 'rm -rf "$tmp"' EXIT; cd "$tmp"
npm install --silent --no-audit --no-fund --ignore-scripts @google/genai@3.3.0 >/dev/null
cat >try.mjs <<'JS'
import http from 'node:http'
import { GoogleGenAI } from '@google/genai'
import { readFileSync } from 'node:fs'

// A provider that asks for the tool three times and then answers; each prompt is 1,000 tokens longer.
const billed = []
const server = http.createServer((req, res) => {
  req.resume().on('end', () => {
    const prompt = 1000 * (billed.length + 1)
    billed.push(prompt)
    const parts = billed.length < 4 ? [{ functionCall: { name: 'stock', args: {} } }] : [{ text: 'Seven are left.' }]
    res.setHeader('content-type', 'application/json')
    res.end(JSON.stringify({
      candidates: [{ content: { role: 'model', parts }, finishReason: 'STOP' }],
      usageMetadata: { promptTokenCount: prompt, candidatesTokenCount: 10, totalTokenCount: prompt + 10 },
    }))
  })
}).listen(0, '127.0.0.1')
await new Promise((done) => server.on('listening', done))

const ai = new GoogleGenAI({ apiKey: 'none', httpOptions: { baseUrl: `http://127.0.0.1:${server.address().port}` } })
const stock = {
  tool: async () => ({ functionDeclarations: [{ name: 'stock', parametersJsonSchema: { type: 'object', properties: {} } }] }),
  callTool: async (calls) => calls.map((c) => ({ functionResponse: { name: c.name, response: { left: 7 } } })),
}
const answer = await ai.models.generateContent({
  model: 'gemini-2.5-flash', contents: 'How many are left?', config: { tools: [stock] },
})
server.close()

const sum = billed.reduce((a, b) => a + b)
const said = answer.usageMetadata.promptTokenCount
console.log('@google/genai', JSON.parse(readFileSync('node_modules/@google/genai/package.json')).version)
console.log(`${billed.length} model calls, prompt tokens billed ${sum}, usageMetadata.promptTokenCount ${said}`)
if (billed.length !== 4 || sum !== 10000 || said !== 4000) {
  console.log('CHANGED: the usage of the earlier calls is no longer left out')
  process.exit(1)
}
JS
node try.mjs
