#!/usr/bin/env bash
# Runs a command that is silent for long, and shows that it is at work:
#   progress.sh 'what it does' command argument…
# On a terminal one line counts the seconds; elsewhere a line comes now and then. What the command prints is
# shown if it fails.
set -euo pipefail

what=$1
shift
output=$(mktemp)
"$@" >"$output" 2>&1 &
command=$!
trap 'rm -f "$output"' EXIT
trap 'kill "$command" 2>/dev/null || true; exit 130' INT TERM

if [[ -t 1 ]]; then
  while kill -0 "$command" 2>/dev/null; do
    printf '\r%s… %d s' "$what" "$SECONDS"
    sleep 1
  done
  printf '\n'
else
  printf '%s…\n' "$what"
  next=15
  while kill -0 "$command" 2>/dev/null; do
    if ((SECONDS >= next)); then
      printf '%s… %d s\n' "$what" "$SECONDS"
      next=$((SECONDS + 15))
    fi
    sleep 1
  done
fi

status=0
wait "$command" || status=$?
if ((status != 0)); then
  cat "$output" >&2
  printf '%s failed\n' "$what" >&2
fi
exit "$status"
