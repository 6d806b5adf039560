#!/bin/sh
# Creates the namespace that Earmark works in, unless it is there. TEMPORAL_ADDRESS and TEMPORAL_NAMESPACE say
# which one. A new server knows its namespaces only after a moment, so this waits until it answers.
set -eu
attempts=30
# A closed workflow knows the usage that it committed, which a restored backup of the ledger may lack: its history has
# to outlive the backups. 30 days suits backups of up to 29; each history takes about 3 kB.
retention=720h

until temporal operator namespace describe >/dev/null 2>&1; do
  attempts=$((attempts - 1))
  if [ "$attempts" -eq 0 ]; then
    echo "namespace $TEMPORAL_NAMESPACE could not be created" >&2
    exit 1
  fi
  temporal operator namespace create --retention "$retention" || true
  sleep 2
done
echo "namespace $TEMPORAL_NAMESPACE is there"
