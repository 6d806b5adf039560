#!/usr/bin/env bash
# Usage: tools/python.sh [FILE]
# Checks and tests the Python client in a virtual environment, or runs a file in it. With EARMARK_CONFORMANCE_URL
# it runs the cases of that server, with EARMARK_TEST_URL also what needs an Earmark, and with
# EARMARK_INTEGRATIONS=1 the packages of requirements-integrations.txt.
set -euo pipefail
cd "$(dirname "$0")/../clients/python"

if ! python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
  echo "the tests of the Python client need Python 3.11 or newer as python3, because the SDKs of providers do; this is $(python3 --version 2>&1)" >&2
  exit 1
fi
requirements=requirements.txt
if [[ -n ${EARMARK_INTEGRATIONS:-} ]]; then requirements=requirements-integrations.txt; fi
if [[ ! .venv/installed-$requirements -nt requirements.txt || ! .venv/installed-$requirements -nt $requirements ]]; then
  python3 -m venv --clear .venv || { echo 'python3 has no venv; install it (Debian: apt install python3-venv)' >&2; exit 1; }
  .venv/bin/pip install --quiet --no-compile --disable-pip-version-check --requirement "$requirements"
  touch ".venv/installed-$requirements" .venv/installed-requirements.txt
fi
if (($#)); then PYTHONPATH=src exec .venv/bin/python "$1"; fi
.venv/bin/python tools/generate.py --check
.venv/bin/mypy src tools tests examples ../../examples/litellm-proxy
.venv/bin/python -m pytest --quiet
