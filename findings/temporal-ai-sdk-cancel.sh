#!/usr/bin/env bash
# @temporalio/ai-sdk: a cancelled activity does not stop its call of the model.
# Guess:  the cancellation of the workflow reaches the activity's signal, and the activity passes it on to the model as abortSignal.
# Seen:   the model gets no signal: the call runs to its end, and the provider bills all of it. `ai` itself, given the same signal, hangs up.
set -euo pipefail
tmp=$(mktemp -d); trap 'rm -rf "$tmp"' EXIT; cd "$tmp"
npm install --silent --no-audit --no-fund --ignore-scripts @temporalio/ai-sdk@1.23.0 @temporalio/activity@1.23.0 ai@7.0.173 @ai-sdk/openai@4.0.118 >/dev/null
cat >try.mjs <<'JS'
import http from 'node:http'
import { readFileSync } from 'node:fs'
import { generateText } from 'ai'
import { createOpenAI } from '@ai-sdk/openai'
import { asyncLocalStorage } from '@temporalio/activity'
import { createActivities } from '@temporalio/ai-sdk'

let arrived = () => {}
const hangUpMs = 1000 // how long the provider waits for the client to hang up
const server = http.createServer((req, res) => {
  req.resume().on('end', () => {
    arrived()
    setTimeout(() => {
      if (res.destroyed) return
      res.writeHead(200, { 'content-type': 'application/json' })
      res.end(JSON.stringify({
        id: 'c', object: 'chat.completion', created: 1, model: 'm', choices: [{ index: 0, message: { role: 'assistant', content: 'Yes.' }, finish_reason: 'stop' }],
        usage: { prompt_tokens: 10, completion_tokens: 5, total_tokens: 15 },
      }))
    }, hangUpMs)
  })
}).listen(0, '127.0.0.1')
await new Promise((done) => server.on('listening', done))
const openai = createOpenAI({ apiKey: 'none', baseURL: `http://127.0.0.1:${server.address().port}` })
// The provider's models by name, as the activities ask for them.
const provider = { specificationVersion: 'v4', languageModel: (name) => openai.chat(name) }
const { invokeModel } = createActivities(provider)
const calls = {
  'generateText': (abortSignal) => generateText({ model: openai.chat('m'), prompt: 'Is it?', abortSignal, maxRetries: 0 }),
  // As a worker runs it: in the context of an activity, whose signal says that it is cancelled.
  'the activity': (cancellationSignal) => asyncLocalStorage.run({ info: {}, cancellationSignal, heartbeat() {} },
    () => invokeModel({ modelId: 'm', options: { prompt: [{ role: 'user', content: [{ type: 'text', text: 'Is it?' }] }] } })),
}
const version = (name) => JSON.parse(readFileSync(`node_modules/${name}/package.json`)).version
console.log('@temporalio/ai-sdk', version('@temporalio/ai-sdk'), 'ai', version('ai'))
const seen = {}
for (const [name, call] of Object.entries(calls)) {
  const cancelled = new AbortController()
  arrived = () => cancelled.abort(new Error('cancelled'))
  seen[name] = await call(cancelled.signal).then((answer) => `answered, ${answer.usage.outputTokens.total ?? answer.usage.outputTokens} output tokens`, (error) => `stopped: ${error.message}`)
  console.log(`cancelled while the model works: ${name} ${seen[name]}`)
}
server.close()
if (!seen['generateText'].startsWith('stopped') || seen['the activity'] !== 'answered, 5 output tokens') {
  console.log('CHANGED: the cancellation reaches the model')
  process.exit(1)
}
JS
node try.mjs
