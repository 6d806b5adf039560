#!/usr/bin/env bash
# ai: leaving the loop over textStream does not stop the provider, and abort leaves nobody with the usage.
# Guess:  `break` closes the connection, as it does with the vendors' SDKs; after an abort the usage so far can be had.
# Seen:   after break the connection stays open, no callback runs, and the provider writes its whole answer, which it
#         bills; after abort it stops, `usage` rejects and onAbort has no steps, though the first event said 2,310 tokens.
set -euo pipefail
tmp=$(mktemp -d); trap 'rm -rf "$tmp"' EXIT; cd "$tmp"
npm install --silent --no-audit --no-fund --ignore-scripts ai@7.0.173 @ai-sdk/anthropic@4.0.105 >/dev/null
cat >try.mjs <<'JS'
import http from 'node:http'
import { streamText } from 'ai'
import { createAnthropic } from '@ai-sdk/anthropic'
import { readFileSync } from 'node:fs'

const START = {
  type: 'message_start', message: {
    id: 'm', type: 'message', role: 'assistant', model: 'claude-sonnet-4-5', content: [], stop_reason: null,
    stop_sequence: null, usage: { input_tokens: 2310, output_tokens: 1 },
  },
}
const WORD = { type: 'content_block_delta', index: 0, delta: { type: 'text_delta', text: 'word ' } }
const EVENTS = [START, { type: 'content_block_start', index: 0, content_block: { type: 'text', text: '' } },
  ...Array(96).fill(WORD), { type: 'content_block_stop', index: 0 },
  { type: 'message_delta', delta: { stop_reason: 'end_turn', stop_sequence: null }, usage: { output_tokens: 96 } },
  { type: 'message_stop' }]

// A provider that writes an event every 10 ms, and stops when its client closes the connection.
let settle
const server = http.createServer((req, res) => {
  res.setHeader('content-type', 'text/event-stream')
  let sent = 0
  const timer = setInterval(() => {
    const e = EVENTS[sent++]
    res.write(`event: ${e.type}\ndata: ${JSON.stringify(e)}\n\n`)
    if (sent === EVENTS.length) res.end()
  }, 10)
  res.on('finish', () => { clearInterval(timer); settle({ sent, by: 'its own end' }) })
  res.on('close', () => { clearInterval(timer); settle({ sent, by: 'a closed connection' }) })
}).listen(0, '127.0.0.1')
await new Promise((done) => server.on('listening', done))
const anthropic = createAnthropic({ apiKey: 'none', baseURL: `http://127.0.0.1:${server.address().port}/v1` })

async function leave(how) {
  const controller = new AbortController(), callbacks = []
  const ended = new Promise((resolve) => { settle = resolve })
  const result = streamText({
    model: anthropic('claude-sonnet-4-5'), prompt: 'Tell me.', abortSignal: controller.signal, onError() {},
    onAbort: (e) => { callbacks.push(`onAbort, ${e.steps.length} steps`) }, onFinish: () => { callbacks.push('onFinish') },
  })
  let words = 0
  for await (const _ of result.textStream) if (++words === 3) { if (how === 'break') break; controller.abort() }
  const provider = await ended
  return [provider, [...callbacks], how === 'abort' && await result.usage.then((u) => u.inputTokens, (e) => e.name)]
}

console.log('ai', JSON.parse(readFileSync('node_modules/ai/package.json')).version)
const [broke, noCallbacks] = await leave('break')
const [aborted, callbacks, usage] = await leave('abort')
console.log(`break after 3 words: provider wrote ${broke.sent} of ${EVENTS.length} events, ended by ${broke.by}; callbacks: ${noCallbacks}`)
console.log(`abort after 3 words: ended by ${aborted.by}; callbacks: ${callbacks}; usage: ${usage}`)
server.closeAllConnections(); server.close()
const same = broke.by === 'its own end' && !noCallbacks.length && aborted.by === 'a closed connection' && usage === 'AbortError'
if (!same) { console.log('CHANGED: break stops the provider, or an aborted stream reports its usage'); process.exit(1) }
JS
node try.mjs
