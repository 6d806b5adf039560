#!/usr/bin/env bash
# @openai/agents: a run that fails in its third turn does not say what the first two used.
# Guess:  the error of a failed run carries the run's state, and with it the usage, whatever made it fail.
# Seen:   MaxTurnsExceededError has state with 3,030 tokens; a refused third call and an output that does not parse
#         have no state: 2,020 and 3,030 tokens that were billed are in no result and no error.
set -euo pipefail
tmp=$(mktemp -d); trap 'rm -rf "$tmp"' EXIT; cd "$tmp"
npm install --silent --no-audit --no-fund --ignore-scripts @openai/agents@0.20.0 openai@7.59.0 zod@4.1.12 >/dev/null
cat >try.mjs <<'JS'
import { Agent, OpenAIChatCompletionsModel, run, setTracingDisabled, tool } from '@openai/agents'
import OpenAI from 'openai'
import { z } from 'zod'
import { readFileSync } from 'node:fs'

setTracingDisabled(true)
const stock = tool({ name: 'stock', description: 'how many are left', parameters: z.object({}), execute: async () => '7' })
function answer(calls, content) {
  const tool_calls = [{ id: `t${calls}`, type: 'function', function: { name: 'stock', arguments: '{}' } }]
  return Response.json({
    id: 'c', object: 'chat.completion', created: 1, model: 'm',
    choices: [{
      index: 0, finish_reason: content ? 'stop' : 'tool_calls',
      message: { role: 'assistant', content: content ?? null, ...(!content && { tool_calls }) },
    }],
    usage: { prompt_tokens: 1000, completion_tokens: 10, total_tokens: 1010 },
  })
}
const refused = () => Response.json({ error: { message: 'Input too long.' } }, { status: 400 })

async function fail(third, options, maxTurns) {
  let calls = 0, billed = 0
  const fetch = async () => {
    const response = ++calls < 3 ? answer(calls) : third(calls)
    if (response.ok) billed += 1010
    return response
  }
  const model = new OpenAIChatCompletionsModel(new OpenAI({ apiKey: 'none', fetch }), 'm')
  const agent = new Agent({ name: 'clerk', model, tools: [stock], ...options })
  const error = await run(agent, 'How many are left?', { maxTurns }).then(() => { throw new Error('no error') }, (e) => e)
  return { error: error.constructor.name, billed, reported: error.state?.usage?.totalTokens ?? error.state?._context?.usage?.totalTokens }
}

console.log('@openai/agents', JSON.parse(readFileSync('node_modules/@openai/agents/package.json')).version)
const turns = await fail((n) => answer(n), {}, 3)
const refusal = await fail(refused, {}, 9)
const output = await fail((n) => answer(n, 'seven'), { outputType: z.object({ left: z.number() }) }, 9)
console.log('too many turns:     ', turns)
console.log('third call refused: ', refusal)
console.log('output not as asked:', output)
if (turns.reported !== 3030 || refusal.billed !== 2020 || refusal.reported || output.billed !== 3030 || output.reported) {
  console.log('CHANGED: other errors say what was used')
  process.exit(1)
}
JS
node try.mjs
