#!/usr/bin/env bash
# datamodel-code-generator: a required property that may be null becomes one that may not, unless an option is given.
# Guess:  `nullable: true` of OpenAPI 3.0 is part of the type, and becomes `| None` wherever it stands.
# Seen:   `limit: int`, so null, which the document allows, fails validation; with --strict-nullable `limit: int | None`. `type: [integer, "null"]`
#         of OpenAPI 3.1 needs no option.
set -euo pipefail
tmp=$(mktemp -d); trap 'rm -rf "$tmp"' EXIT; cd "$tmp"
python3 -m venv venv
venv/bin/pip install --quiet --no-compile --disable-pip-version-check datamodel-code-generator==0.89.0 pydantic==2.12.4
write() { # VERSION TYPE: a document with one schema, whose one property is required and may be null
  printf '%s\n' "openapi: $1" 'info: {title: budgets, version: "1"}' 'paths: {}' 'components:' '  schemas:' '    Budget:' \
    '      type: object' '      required: [limit]' '      properties:' "        limit: $2" >api.yaml
}
limit() { # of the model that the generator makes
  venv/bin/datamodel-codegen "$@" --input api.yaml --input-file-type openapi --output-model-type pydantic_v2.BaseModel --output model.py 2>/dev/null
  grep -o 'limit: .*' model.py
}
write 3.0.3 '{type: integer, nullable: true}'
plain=$(limit)
refused=$(venv/bin/python -c 'import model; model.Budget.model_validate({"limit": None})' 2>&1 | grep -o 'Input should be a valid integer' || true)
strict=$(limit --strict-nullable)
write 3.1.0 '{type: [integer, "null"]}'
newer=$(limit)
venv/bin/python -c 'from importlib.metadata import version as v; print("datamodel-code-generator", v("datamodel-code-generator"), "pydantic", v("pydantic"))'
echo "3.0, nullable: true:                    $plain (null: $refused)"
echo "3.0, nullable: true, --strict-nullable: $strict"
echo "3.1, [integer, \"null\"]:                 $newer"
if [[ $plain != 'limit: int' || -z $refused || $strict != 'limit: int | None'* || $newer != 'limit: int | None' ]]; then
  echo 'CHANGED: null is written in another way'
  exit 1
fi
