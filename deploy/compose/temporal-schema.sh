#!/bin/sh
# Creates Temporal's two databases and brings their schemas up to this release. Every step may be repeated.
# Where and who is in SQL_PLUGIN, SQL_HOST, SQL_PORT, SQL_USER and SQL_PASSWORD.
set -eu
schemas=${SCHEMA_DIR:-/etc/temporal/schema}/postgresql/v12

prepare() {
  temporal-sql-tool --db "$1" create-database
  temporal-sql-tool --db "$1" setup-schema -v 0.0
  temporal-sql-tool --db "$1" update-schema -d "$schemas/$2/versioned"
}

prepare temporal temporal
prepare temporal_visibility visibility
