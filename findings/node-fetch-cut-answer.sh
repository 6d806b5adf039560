#!/usr/bin/env bash
# Node.js: fetch takes a chunked answer that was cut off for a whole one, if the server had said `Connection: close`.
# Guess:  a chunked answer without its last chunk is an error, as it is in curl and in Go, whatever the connection's header says.
# Seen:   with `Connection: close` the reader sees a normal end; without it "terminated". A stream of events that broke off looks
#         complete, and the event with the usage is missing.
set -euo pipefail
tmp=$(mktemp -d); trap 'rm -rf "$tmp"' EXIT; cd "$tmp"
cat >try.mjs <<'JS'
import net from 'node:net'

const chunk = (text) => `${text.length.toString(16)}\r\n${text}\r\n`
const server = net.createServer((socket) => {
  socket.once('data', (request) => {
    const close = String(request).includes('/close') ? 'Connection: close\r\n' : ''
    socket.write(`HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n${close}Transfer-Encoding: chunked\r\n\r\n`)
    socket.end(chunk('data: {"delta":"Yes"}\n\n')) // and no last chunk
  })
}).listen(0, '127.0.0.1')
await new Promise((done) => server.on('listening', done))
const read = async (path) => {
  const response = await fetch(`http://127.0.0.1:${server.address().port}${path}`)
  return response.text().then((text) => `a whole answer of ${text.length} bytes`, (error) => `${error.name} "${error.message}"`)
}
const close = await read('/close'), keep = await read('/keep')
server.close()
console.log(`Node.js ${process.versions.node}, undici ${process.versions.undici}`)
console.log(`cut off, with Connection: close: ${close}`)
console.log(`cut off, without:                ${keep}`)
if (close !== 'a whole answer of 23 bytes' || keep !== 'TypeError "terminated"') {
  console.log('CHANGED: an answer that was cut off is read in another way')
  process.exit(1)
}
JS
node try.mjs
