#!/usr/bin/env bash
# Postgres: SET search_path on some functions of a ledger, and not on all, makes a session plan their shared helpers anew.
# Guess:  the setting costs a little at each call; plans stay cached for the session.
# Seen:   a helper that two functions with different paths call in turn is planned at every call; with one path, never
#         again. In a ledger whose read before an admission had no setting, that was a fifth of all its instructions. Give
#         every function that a session calls the same path, when SECURITY DEFINER makes one necessary.
set -euo pipefail
tmp=$(mktemp -d); trap 'rm -rf "$tmp"' EXIT; cd "$tmp"
npm install --silent --no-audit --no-fund --ignore-scripts @electric-sql/pglite@0.5.17 >/dev/null
cat >try.mjs <<'JS'
import { PGlite } from '@electric-sql/pglite'
import { readFileSync } from 'node:fs'

const db = new PGlite()
await db.exec(`
  CREATE TABLE public.budget (id int PRIMARY KEY, room int);
  CREATE FUNCTION public.room() RETURNS int LANGUAGE plpgsql AS $$ BEGIN RETURN (SELECT sum(room) FROM public.budget); END $$;
  CREATE FUNCTION public.reserve() RETURNS int LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$ BEGIN RETURN public.room(); END $$;
  CREATE FUNCTION public.look() RETURNS int LANGUAGE plpgsql AS $$ BEGIN RETURN public.room(); END $$;
  CREATE FUNCTION public.look_alike() RETURNS int LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$ BEGIN RETURN public.room(); END $$;
  PREPARE reserve AS SELECT public.reserve();
  PREPARE look AS SELECT public.look();
  PREPARE look_alike AS SELECT public.look_alike();
  SET plan_cache_mode = force_generic_plan;
  SET debug_print_plan = on; SET client_min_messages = log`)
// plans counts the plans that name the table, in 20 turns after 10 to warm up.
async function plans(read) {
  let n = 0
  for (let turn = 0; turn < 30; turn++) {
    for (const statement of ['reserve', read]) {
      await db.exec(`EXECUTE ${statement}`, { onNotice: (notice) => { if (turn >= 10 && /plan:/.test(notice.message ?? '') && /:relid|RTE/.test(notice.detail ?? '')) n++ } })
    }
  }
  return n
}
const [{ rows: [{ server_version }] }] = [await db.query('SHOW server_version')]
console.log('PGlite', JSON.parse(readFileSync('node_modules/@electric-sql/pglite/package.json')).version, 'Postgres', server_version)
const apart = await plans('look'), alike = await plans('look_alike')
console.log(`20 turns of reserve and a read of another path: ${apart} plans that read the table`)
console.log(`20 turns of reserve and a read of the same path: ${alike}`)
if (apart < 40 || alike !== 0) { console.log('CHANGED: plans are kept for each search path, or not at all'); process.exit(1) }
JS
node try.mjs
