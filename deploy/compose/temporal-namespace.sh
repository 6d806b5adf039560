#!/bin/sh
# Creates the namespace that Earmark works in, unless it is there. TEMPORAL_ADDRESS and TEMPORAL_NAMESPACE say
# which one. A new server knows its namespaces only after a moment, so this waits until it answers.
set -eu
attempts=30

until temporal operator namespace describe >/dev/null 2>&1; do
  attempts=$((attempts - 1))
  if [ "$attempts" -eq 0 ]; then
    echo "namespace $TEMPORAL_NAMESPACE could not be created" >&2
    exit 1
  fi
  temporal operator namespace create --retention 72h || true
  sleep 2
done
echo "namespace $TEMPORAL_NAMESPACE is there"
