#!/usr/bin/env bash
# Postgres: date_trunc('day', t, zone) can be later than t.
# Guess:  a truncated time is never after the time; so the day of t starts at date_trunc.
# Seen:   where clocks go back over midnight (Azores, 2026-10-25) the first hour of the day is truncated to its second
#         midnight, 15 to 60 minutes in the future: usage of that hour is before the window it is counted in.
set -euo pipefail
tmp=$(mktemp -d); trap 'rm -rf "$tmp"' EXIT; cd "$tmp"
npm install --silent --no-audit --no-fund --ignore-scripts @electric-sql/pglite@0.5.17 >/dev/null
cat >try.mjs <<'JS'
import { PGlite } from '@electric-sql/pglite'
import { readFileSync } from 'node:fs'

const db = new PGlite()
await db.exec("SET TIME ZONE 'UTC'")
const { rows } = await db.query(`
  SELECT t::text, (t AT TIME ZONE 'Atlantic/Azores')::text AS local, date_trunc('day', t, 'Atlantic/Azores')::text AS day
  FROM generate_series('2026-01-01'::timestamptz, '2027-01-01', '15 minutes') t
  WHERE date_trunc('day', t, 'Atlantic/Azores') > t ORDER BY t`)
const [{ server_version }] = (await db.query('SHOW server_version')).rows

console.log('PGlite', JSON.parse(readFileSync('node_modules/@electric-sql/pglite/package.json')).version, 'Postgres', server_version)
for (const { t, local, day } of rows) console.log(`${t} is ${local} in the Azores, its day starts ${day}`)
if (rows.length !== 4 || rows[0].day !== '2026-10-25 01:00:00+00') {
  console.log('CHANGED: no day of the Azores starts after its first moment')
  process.exit(1)
}
JS
node try.mjs
