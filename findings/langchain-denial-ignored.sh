#!/usr/bin/env bash
# LangChain.js: a callback that throws does not stop the model call, not even with raiseError.
# Guess:  an error in handleChatModelStart ends the call; if not, then raiseError = true makes it so.
# Seen:   by default the error is printed and the provider is called; with raiseError too, and the error turns up as an
#         unhandled rejection; only raiseError together with awaitHandlers keeps the request from being sent.
set -euo pipefail
tmp=$(mktemp -d); trap 'rm -rf "$tmp"' EXIT; cd "$tmp"
npm install --silent --no-audit --no-fund --ignore-scripts @langchain/core@1.4.0 @langchain/openai@1.6.0 >/dev/null
cat >try.mjs <<'JS'
import { ChatOpenAI } from '@langchain/openai'
import { BaseCallbackHandler } from '@langchain/core/callbacks/base'
import { readFileSync } from 'node:fs'

let requests, unhandled
process.on('unhandledRejection', () => { unhandled++ })
console.error = () => {}
class Guard extends BaseCallbackHandler {
  name = 'guard'
  async handleChatModelStart() { throw new Error('budget exceeded') }
}
const model = new ChatOpenAI({
  model: 'm', apiKey: 'none',
  configuration: {
    fetch: async () => {
      requests++
      return Response.json({
        id: 'c', object: 'chat.completion', created: 1, model: 'm',
        choices: [{ index: 0, finish_reason: 'stop', message: { role: 'assistant', content: 'Yes.' } }],
        usage: { prompt_tokens: 1000, completion_tokens: 10, total_tokens: 1010 },
      })
    },
  },
})
async function ask(settings) {
  requests = unhandled = 0
  const outcome = await model.invoke('Is it?', { callbacks: [Object.assign(new Guard(), settings)] }).then((r) => r.content, (e) => e.message)
  await new Promise(setImmediate)
  return { outcome, requests, unhandled }
}
const version = JSON.parse(readFileSync('node_modules/@langchain/core/package.json')).version
const seen = [await ask({}), await ask({ raiseError: true }), await ask({ raiseError: true, awaitHandlers: true })]
console.log('@langchain/core', version)
for (const [i, name] of ['by default', 'raiseError', 'raiseError and awaitHandlers'].entries()) console.log(name.padEnd(28), seen[i])
if (seen.map((s) => s.requests).join() !== '1,1,0' || seen[2].outcome !== 'budget exceeded') {
  console.log('CHANGED: another setting stops the call')
  process.exit(1)
}
JS
node try.mjs
