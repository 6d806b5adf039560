#!/usr/bin/env bash
# Copies the viewer of the API reference out of its npm package, pinned with its checksum in package-lock.json, into
# DIR (default api/docs/swagger-ui). What a browser loads is stored compressed, as it is served.
set -euo pipefail
cd "$(dirname "$0")/../.."

out=${1:-api/docs/swagger-ui}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cp tools/docs/{package.json,package-lock.json,.npmrc} "$work"
(cd "$work" && npm ci --no-audit --no-fund --loglevel=error >/dev/null)

package=$work/node_modules/swagger-ui-dist
rm -rf "$out" && mkdir -p "$out"
for file in swagger-ui-bundle.js swagger-ui.css; do
  gzip --best --no-name <"$package/$file" >"$out/$file.gz"
done
# Of what was compressed: two gzips may differ in their output.
(cd "$package" && sha256sum swagger-ui-bundle.js swagger-ui.css) >"$out/SHA256SUMS"
cp "$package/LICENSE" "$out/LICENSE.txt"
cp "$package/NOTICE" "$out/NOTICE.txt"
cp "$package/swagger-ui-bundle.js.LICENSE.txt" "$out/swagger-ui-bundle.js.LICENSE.txt"
