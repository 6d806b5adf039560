#!/usr/bin/env bash
# Usage: tools/typescript.sh build|test|FILE
# Builds or tests the TypeScript client, or builds it and runs a file. Its tests need Go. With EARMARK_CONFORMANCE_URL it runs the cases of that server, with
# EARMARK_TEST_URL also what needs an Earmark.
set -euo pipefail
cd "$(dirname "$0")/../clients/typescript"

if ! command -v node >/dev/null || ! command -v npm >/dev/null; then
  echo 'the TypeScript client needs Node.js 20 or newer with npm, and there is none' >&2
  exit 1
fi
if (($(node -p 'process.versions.node.split(".")[0]') < 20)); then
  echo "the TypeScript client needs Node.js 20 or newer; this is $(node --version)" >&2
  exit 1
fi
if [[ ! node_modules/.package-lock.json -nt package-lock.json ]]; then
  npm ci --no-audit --no-fund --ignore-scripts
fi
case ${1:?build, test or a file} in
build | test) npm run --silent "$1" ;;
*)
  if [[ ! -e dist/cjs/package.json || -n $(find src -newer dist/cjs/package.json) ]]; then npm run --silent build; fi
  exec node "$1"
  ;;
esac
