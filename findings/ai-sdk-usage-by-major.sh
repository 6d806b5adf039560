#!/usr/bin/env bash
# ai 7 changed what `usage` means: in 5 and 6 it is the last step's, in 7 it is the sum of all steps.
# Guess:  result.usage is the same number in every major; totalUsage is there for the sum.
# Seen:   three steps of 1,010 tokens: usage is 1,010 in ai 5 and 6 and 3,030 in ai 7; totalUsage is 3,030 in all.
#         Code that adds the usage of steps on top of `usage`, or charges `usage`, is wrong on one side of the upgrade.
set -euo pipefail
tmp=$(mktemp -d); trap 'rm -rf "$tmp"' EXIT; cd "$tmp"
cat >try.mjs <<'JS'
import { generateText, stepCountIs, tool, jsonSchema } from 'ai'
import { createOpenAI } from '@ai-sdk/openai'
import { readFileSync } from 'node:fs'

let calls = 0
const openai = createOpenAI({
  apiKey: 'none',
  fetch: async () => {
    calls++
    const wantsTool = calls < 3
    const tool_calls = [{ id: `t${calls}`, type: 'function', function: { name: 'stock', arguments: '{}' } }]
    return Response.json({
      id: 'c', object: 'chat.completion', created: 1, model: 'm',
      choices: [{
        index: 0, finish_reason: wantsTool ? 'tool_calls' : 'stop',
        message: { role: 'assistant', content: wantsTool ? null : 'Seven.', ...(wantsTool && { tool_calls }) },
      }],
      usage: { prompt_tokens: 1000, completion_tokens: 10, total_tokens: 1010 },
    })
  },
})
const result = await generateText({
  model: openai.chat('m'), prompt: 'How many are left?', stopWhen: stepCountIs(5),
  tools: { stock: tool({ inputSchema: jsonSchema({ type: 'object', properties: {} }), execute: async () => 7 }) },
})
const version = JSON.parse(readFileSync('node_modules/ai/package.json')).version
console.log(`ai ${version} calls ${calls} usage ${result.usage.totalTokens} totalUsage ${result.totalUsage.totalTokens}`)
JS
for pair in ai@5.0.277:@ai-sdk/openai@2.0.131 ai@6.0.326:@ai-sdk/openai@3.0.141 ai@7.0.173:@ai-sdk/openai@4.0.118; do
  major=${pair%%.*}
  mkdir "$major" && cp try.mjs "$major" && cd "$major" && echo '{}' >package.json
  npm install --silent --no-audit --no-fund --ignore-scripts "${pair%%:*}" "${pair#*:}" >/dev/null
  node try.mjs 2>/dev/null | tee -a ../seen
  cd ..
done
cat >expected <<'TXT'
ai 5.0.277 calls 3 usage 1010 totalUsage 3030
ai 6.0.326 calls 3 usage 1010 totalUsage 3030
ai 7.0.173 calls 3 usage 3030 totalUsage 3030
TXT
cmp -s seen expected || { echo 'CHANGED: usage means another sum'; exit 1; }
