#!/usr/bin/env bash
# LangChain reads the usage of one and the same Anthropic stream in two ways, and neither is what is billed.
# Guess:  usage_metadata of the joined chunks is 100 input and 20 output tokens, in both languages.
# Seen:   message_start says 100 and a first 8, message_delta says 20 in all, and null for input, as its type allows.
#         JavaScript reports 100 and 28; Python reports 0 and 20: the prompt is free.
set -euo pipefail
tmp=$(mktemp -d); trap 'rm -rf "$tmp"' EXIT; cd "$tmp"
npm install --silent --no-audit --no-fund --ignore-scripts @langchain/core@1.4.0 @langchain/anthropic@1.5.11 >/dev/null
python3 -m venv venv
venv/bin/pip install --quiet --no-compile --disable-pip-version-check langchain-core==1.8.3 langchain-anthropic==1.7.10
cat >provider.mjs <<'JS'
import http from 'node:http'
const EVENTS = [
  { type: 'message_start', message: {
    id: 'm', type: 'message', role: 'assistant', model: 'claude-opus-4-6', content: [], stop_reason: null, stop_sequence: null,
    usage: { input_tokens: 100, output_tokens: 8 },
  } },
  { type: 'content_block_start', index: 0, content_block: { type: 'text', text: '' } },
  { type: 'content_block_delta', index: 0, delta: { type: 'text_delta', text: 'It is.' } },
  { type: 'content_block_stop', index: 0 },
  { type: 'message_delta', delta: { stop_reason: 'end_turn', stop_sequence: null }, usage: {
    input_tokens: null, cache_creation_input_tokens: null, cache_read_input_tokens: null, output_tokens: 20,
  } },
  { type: 'message_stop' },
]
export const server = http.createServer((req, res) => {
  req.resume().on('end', () => {
    res.setHeader('content-type', 'text/event-stream')
    res.end(EVENTS.map((e) => `event: ${e.type}\ndata: ${JSON.stringify(e)}\n\n`).join(''))
  })
}).listen(0, '127.0.0.1')
await new Promise((done) => server.on('listening', done))
export const url = `http://127.0.0.1:${server.address().port}`
JS
cat >try.mjs <<'JS'
import { execFile } from 'node:child_process'
import { promisify } from 'node:util'
import { readFileSync } from 'node:fs'
import { ChatAnthropic } from '@langchain/anthropic'
import { server, url } from './provider.mjs'

let message
for await (const chunk of await new ChatAnthropic({ model: 'claude-opus-4-6', apiKey: 'none', anthropicApiUrl: url }).stream('Is it?')) {
  message = message ? message.concat(chunk) : chunk
}
const version = JSON.parse(readFileSync('node_modules/@langchain/anthropic/package.json')).version
const { input_tokens, output_tokens } = message.usage_metadata
const javascript = `@langchain/anthropic ${version}: input ${input_tokens}, output ${output_tokens}`
const python = (await promisify(execFile)('venv/bin/python', ['try.py', url])).stdout.trim()
server.close()
console.log(javascript + '\n' + python)
if (!javascript.endsWith('input 100, output 28') || !python.endsWith('input 0, output 20')) {
  console.log('CHANGED: the stream is read in another way')
  process.exit(1)
}
JS
cat >try.py <<'PY'
import sys
from importlib.metadata import version
from langchain_anthropic import ChatAnthropic
message = None
for chunk in ChatAnthropic(model="claude-opus-4-6", api_key="none", base_url=sys.argv[1]).stream("Is it?"):
    message = chunk if message is None else message + chunk
usage = message.usage_metadata
print(f"langchain-anthropic {version('langchain-anthropic')}: input {usage['input_tokens']}, output {usage['output_tokens']}")
PY
node try.mjs
