#!/usr/bin/env bash
# Standard Webhooks: the npm library cannot verify a Request as fetch-style servers have it, and rounds what it returns.
# Guess:  verify(await request.text(), request.headers) works where there are Requests (Next.js, Hono, Deno, Workers), with bytes too, and
#         returns the event as it was sent.
# Seen:   "Missing required headers", because Headers has no own keys; a Uint8Array is refused, only a Buffer is bytes. The event comes from
#         JSON.parse: an amount of 9007199254740993 is …992. Pass Object.fromEntries(headers) and text, and parse it yourself.
set -euo pipefail
tmp=$(mktemp -d); trap 'rm -rf "$tmp"' EXIT; cd "$tmp"
npm install --silent --no-audit --no-fund --ignore-scripts standardwebhooks@1.1.1 >/dev/null
cat >try.mjs <<'JS'
import { Webhook } from 'standardwebhooks'
import { readFileSync } from 'node:fs'

const webhook = new Webhook('whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw')
const now = new Date(), text = '{"amount":9007199254740993}'
const request = new Request('https://receiver.test/', { method: 'POST', body: text, headers: {
  'webhook-id': 'msg_1', 'webhook-timestamp': String(Math.floor(now / 1000)), 'webhook-signature': webhook.sign('msg_1', now, text),
} })
const bytes = new Uint8Array(await request.arrayBuffer()), headers = Object.fromEntries(request.headers)
const tries = {
  'text, request.headers': [text, request.headers],
  'Uint8Array, an object of headers': [bytes, headers],
  'Buffer, an object of headers': [Buffer.from(bytes), headers],
  'text, an object of headers': [text, headers],
}
console.log('standardwebhooks', JSON.parse(readFileSync('node_modules/standardwebhooks/package.json')).version)
const seen = []
for (const [name, [body, given]] of Object.entries(tries)) {
  try { seen.push(`amount ${webhook.verify(body, given).amount}`) } catch (error) { seen.push(error.message) }
  console.log(name.padEnd(33), seen.at(-1))
}
if (seen.join('; ') !== 'Missing required headers; Expected payload to be of type string or Buffer.; amount 9007199254740992; amount 9007199254740992') {
  console.log('CHANGED: other requests are verified, or other amounts returned')
  process.exit(1)
}
JS
node try.mjs
