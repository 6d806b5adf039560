#!/usr/bin/env bash
# openai, @anthropic-ai/sdk: a denial thrown from the `fetch` option is retried and renamed.
# Guess:  an error thrown by my own fetch reaches my caller as it is, at once.
# Seen:   three calls of fetch for one request, about a second later an APIConnectionError "Connection error.";
#         the denial is only in `cause`. A 402 answer is not retried: answer, do not throw.
set -euo pipefail
tmp=$(mktemp -d); trap 'rm -rf "$tmp"' EXIT; cd "$tmp"
npm install --silent --no-audit --no-fund --ignore-scripts openai@7.59.0 @anthropic-ai/sdk@1.14.0 >/dev/null
cat >try.mjs <<'JS'
import OpenAI from 'openai'
import Anthropic from '@anthropic-ai/sdk'
import { readFileSync } from 'node:fs'

class BudgetExceeded extends Error {}
const messages = [{ role: 'user', content: 'Is it?' }]
const clients = {
  openai: (fetch) => new OpenAI({ apiKey: 'none', fetch }).chat.completions.create({ model: 'm', messages }),
  '@anthropic-ai/sdk': (fetch) => new Anthropic({ apiKey: 'none', fetch }).messages.create({ model: 'm', max_tokens: 9, messages }),
}
let changed = false
for (const [name, ask] of Object.entries(clients)) {
  let thrown = 0, answered = 0
  const byThrow = await ask(async () => { thrown++; throw new BudgetExceeded('budget exceeded') }).then(() => { throw new Error('no error') }, (e) => e)
  const byAnswer = await ask(async () => { answered++; return Response.json({ error: { message: 'budget exceeded' } }, { status: 402 }) }).then(() => { throw new Error('no error') }, (e) => e)
  console.log(name, JSON.parse(readFileSync(`node_modules/${name}/package.json`)).version)
  console.log(`  thrown:       ${thrown} calls, ${byThrow.constructor.name} "${byThrow.message}", cause ${byThrow.cause?.constructor.name}`)
  console.log(`  answered 402: ${answered} call, status ${byAnswer.status}`)
  changed ||= thrown !== 3 || byThrow instanceof BudgetExceeded || answered !== 1
}
if (changed) {
  console.log('CHANGED: an error of the fetch option is handled in another way')
  process.exit(1)
}
JS
node try.mjs
