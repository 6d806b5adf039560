#!/usr/bin/env bash
# Standard Webhooks: Python's sign() reads the clock time of a datetime and ignores its zone.
# Guess:  sign() takes an aware datetime as the moment that it is, as datetime.timestamp() does.
# Seen:   the zone is replaced by UTC: of one moment, written in three zones, only UTC's signature is right. The others are over a
#         timestamp that is hours away from the header's, and every receiver refuses them. Pass datetime.now(timezone.utc) alone.
set -euo pipefail
tmp=$(mktemp -d); trap 'rm -rf "$tmp"' EXIT; cd "$tmp"
python3 -m venv venv
venv/bin/pip install --quiet --no-compile --disable-pip-version-check standardwebhooks==1.1.0
cat >try.py <<'PY'
import sys
from datetime import datetime, timedelta, timezone
from importlib.metadata import version
from standardwebhooks import Webhook, WebhookVerificationError

webhook = Webhook("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
now = datetime.now(timezone.utc)
print("standardwebhooks", version("standardwebhooks"))
seen = []
for hours in (0, 1, -5):
    same = now.astimezone(timezone(timedelta(hours=hours)))
    assert same == now
    headers = {
        "webhook-id": "msg_1",
        "webhook-timestamp": str(int(same.timestamp())),
        "webhook-signature": webhook.sign("msg_1", same, "{}"),
    }
    try:
        webhook.verify("{}", headers)
        seen.append("verified")
    except WebhookVerificationError as error:
        seen.append(str(error))
    print(same.isoformat(timespec="seconds"), seen[-1])
if seen != ["verified", "No matching signature found", "No matching signature found"]:
    sys.exit("CHANGED: other moments are signed")
PY
venv/bin/python try.py
