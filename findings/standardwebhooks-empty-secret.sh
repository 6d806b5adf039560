#!/usr/bin/env bash
# Standard Webhooks: the Go library takes an empty secret, and then anyone can sign.
# Guess:  NewWebhook(os.Getenv("WEBHOOK_SECRET")) fails where the variable is not set, as the libraries for JavaScript and Python do.
# Seen:   Go takes "" and "whsec_" without an error, and verifies what somebody signed who knows no secret. A receiver that books credit
#         from "payment received" books a forged one.
set -euo pipefail
tmp=$(mktemp -d); trap 'rm -rf "$tmp"' EXIT; cd "$tmp"
npm install --silent --no-audit --no-fund --ignore-scripts standardwebhooks@1.1.1 >/dev/null
python3 -m venv venv
venv/bin/pip install --quiet --no-compile --disable-pip-version-check standardwebhooks==1.1.0
cat >try.mjs <<'JS'
import { Webhook } from 'standardwebhooks'
import { readFileSync } from 'node:fs'

console.log('standardwebhooks', JSON.parse(readFileSync('node_modules/standardwebhooks/package.json')).version, '(npm)')
for (const secret of ['', 'whsec_']) {
  try { new Webhook(secret); console.log(`npm    ${JSON.stringify(secret)} taken`) } catch { console.log(`npm    ${JSON.stringify(secret)} refused`) }
}
JS
cat >try.py <<'PY'
from importlib.metadata import version
from standardwebhooks import Webhook

print("standardwebhooks", version("standardwebhooks"), "(PyPI)")
for secret in ("", "whsec_"):
    try:
        Webhook(secret)
        print(f'python "{secret}" taken')
    except Exception:
        print(f'python "{secret}" refused')
PY
cat >go.mod <<'MOD'
module try

go 1.24
MOD
cat >main.go <<'GO'
package main

import (
	"fmt"
	"net/http"
	"strconv"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
)

func main() {
	body, now := []byte(`{"type":"payment.received"}`), time.Now()
	for _, secret := range []string{"", "whsec_"} {
		receiver, err := standardwebhooks.NewWebhook(secret)
		if err != nil {
			fmt.Printf("go     %q refused\n", secret)
			continue
		}
		stranger, _ := standardwebhooks.NewWebhookRaw(nil)
		signature, _ := stranger.Sign("msg_1", now, body)
		err = receiver.Verify(body, http.Header{
			"Webhook-Id": {"msg_1"}, "Webhook-Timestamp": {strconv.FormatInt(now.Unix(), 10)}, "Webhook-Signature": {signature}})
		fmt.Printf("go     %q taken, a stranger's signature is right: %t\n", secret, err == nil)
	}
}
GO
go get github.com/standard-webhooks/standard-webhooks/libraries@v0.0.1 2>/dev/null
{ node try.mjs; venv/bin/python try.py; go list -m github.com/standard-webhooks/standard-webhooks/libraries; go run .; } | tee seen
diff <(grep -v standard seen) - <<'WANT' || { echo 'CHANGED: other secrets are taken'; exit 1; }
npm    "" refused
npm    "whsec_" refused
python "" refused
python "whsec_" refused
go     "" taken, a stranger's signature is right: true
go     "whsec_" taken, a stranger's signature is right: true
WANT
