#!/usr/bin/env bash
# Postgres takes made-up names with a digit for time zones, and counts their offsets westward.
# Guess:  an unknown zone is refused, as Europe/Berlim is; UTC+3 is three hours ahead.
# Seen:   Madrid1 and Europe/Berlin1 are zones one hour BEHIND UTC; UTC+3 and GMT+5 are behind too. A daily window in such
#         a zone is hours off, without an error. pg_timezone_names has none of them: ask it before you store a name.
set -euo pipefail
tmp=$(mktemp -d); trap 'rm -rf "$tmp"' EXIT; cd "$tmp"
npm install --silent --no-audit --no-fund --ignore-scripts @electric-sql/pglite@0.5.17 >/dev/null
cat >try.mjs <<'JS'
import { PGlite } from '@electric-sql/pglite'
import { readFileSync } from 'node:fs'

const db = new PGlite()
async function offset(zone) {
  try {
    const { rows } = await db.query(
      `SELECT extract(epoch FROM ('2026-01-01 00:00+00'::timestamptz AT TIME ZONE $1::text) - '2026-01-01'::timestamp)::int / 3600 AS hours,
              EXISTS (SELECT 1 FROM pg_timezone_names WHERE name = $1::text) AS listed`, [zone])
    return `${rows[0].hours} h, ${rows[0].listed ? 'listed' : 'not listed'}`
  } catch (e) {
    return 'refused'
  }
}
const expected = {
  'Europe/Berlin': '1 h, listed', 'Europe/Berlim': 'refused', 'Europe/Berlin1': '-1 h, not listed', Madrid1: '-1 h, not listed',
  'UTC+3': '-3 h, not listed', 'GMT+5': '-5 h, not listed', 'Etc/GMT+5': '-5 h, listed',
}
const [{ server_version }] = (await db.query('SHOW server_version')).rows
console.log('PGlite', JSON.parse(readFileSync('node_modules/@electric-sql/pglite/package.json')).version, 'Postgres', server_version)
let changed = false
for (const [zone, hours] of Object.entries(expected)) {
  const seen = await offset(zone)
  console.log(zone.padEnd(15), seen)
  changed ||= seen !== hours
}
if (changed) { console.log('CHANGED: another set of names is accepted'); process.exit(1) }
JS
node try.mjs
