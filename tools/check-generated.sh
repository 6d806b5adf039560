#!/usr/bin/env bash
# Generates everything afresh in a copy of the working tree and compares: what is checked in must be what the
# generators make today. Changes that are not committed yet are part of the copy.
set -euo pipefail
cd "$(dirname "$0")/.."

if ! grep -rqE --include='*.go' '^//go:generate ' .; then
  exit 0
fi
copy=$(mktemp -d)
trap 'rm -rf "$copy"' EXIT
mkdir "$copy/now" "$copy/generated"
tar --create --exclude=./bin --exclude=./.git --exclude=./data --exclude=node_modules --exclude=.venv . | tar --extract --directory="$copy/now"
cp -R "$copy/now/." "$copy/generated"
(cd "$copy/generated" && go generate ./...)
if ! diff --recursive --brief "$copy/now" "$copy/generated"; then
  echo 'generated files are out of date; run go generate ./...' >&2
  exit 1
fi
