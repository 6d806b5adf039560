#!/usr/bin/env bash
# Looks for known vulnerabilities in what the product calls. Where the database of vulnerabilities cannot be
# reached, it says that it did not look, and succeeds.
set -euo pipefail

database=${GOVULNDB:-https://vuln.go.dev}
if [[ $database == http* ]] && ! curl -fsS --max-time 10 -o /dev/null "$database/index/db.json" 2>/dev/null; then
  echo "vulnerabilities: skipped, because their database cannot be reached at $database (GOVULNDB names another)"
  exit 0
fi
bin/govulncheck -db "$database" ./...
