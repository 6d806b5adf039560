#!/usr/bin/env bash
# Postgres: generate_series by one month from the 31st stays on the 28th once it has met a February.
# Guess:  it gives the same dates as start + n months: 31 January, 28 February, 31 March.
# Seen:   28 February, 28 March, 28 April: each step is taken from the one before. Billing periods made this way move by
#         three days for good; start + n * interval '1 month' does not.
set -euo pipefail
tmp=$(mktemp -d); trap 'rm -rf "$tmp"' EXIT; cd "$tmp"
npm install --silent --no-audit --no-fund --ignore-scripts @electric-sql/pglite@0.5.17 >/dev/null
cat >try.mjs <<'JS'
import { PGlite } from '@electric-sql/pglite'
import { readFileSync } from 'node:fs'

const db = new PGlite()
const dates = async (sql) => (await db.query(sql)).rows.map((r) => r.d).join(' ')
const series = await dates(`SELECT d::date::text AS d FROM generate_series('2026-01-31'::timestamp, '2026-05-31', '1 month') d`)
const sums = await dates(`SELECT ('2026-01-31'::timestamp + n * interval '1 month')::date::text AS d FROM generate_series(0, 4) n`)
const [{ server_version }] = (await db.query('SHOW server_version')).rows

console.log('PGlite', JSON.parse(readFileSync('node_modules/@electric-sql/pglite/package.json')).version, 'Postgres', server_version)
console.log('generate_series:', series)
console.log('start + n months:', sums)
if (series !== '2026-01-31 2026-02-28 2026-03-28 2026-04-28 2026-05-28' || sums !== '2026-01-31 2026-02-28 2026-03-31 2026-04-30 2026-05-31') {
  console.log('CHANGED: the two give other dates')
  process.exit(1)
}
JS
node try.mjs
