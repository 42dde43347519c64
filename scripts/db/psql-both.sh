#!/usr/bin/env bash
# psql on the product database, in a session that has loaded what the queries in db/invariants need to know of the other
# one: the engine's rows, and the migrations of this checkout. All arguments go to psql; `-c QUERY` or `-f FILE` is needed.
#
# The rows are a moment older than the query. On a service that is at work look twice: what is gone by then was in passing.
set -euo pipefail
here=$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")
root=$(CDPATH='' cd -- "$here/../.." && pwd -P)
if (($# == 0)); then
	echo "scripts/db/psql-both.sh: which query? -f db/invariants/statuses_agree.sql" >&2
	exit 2
fi
instance=$("$here/psql-app.sh" -Atq -v ON_ERROR_STOP=1 -c 'SELECT id FROM app.instance')
rows=$(mktemp)
trap 'rm -f "$rows"' EXIT

# The statements that load the engine's rows, with the rows in them: one session of the system database prints both.
engine() {
	local name
	{
		echo 'SET DateStyle = ISO; SET TimeZone = UTC; SET bytea_output = hex;'
		echo 'BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY;'
		for name in workflows checkpoints workers relations; do
			printf '\\echo \x27COPY pg_temp.engine_%s FROM STDIN;\x27\nCOPY (\n' "$name"
			cat -- "$root/crates/kodo-engine/src/sysdb/sql/$name.sql"
			printf ') TO STDOUT;\n\\echo \x27\\\\.\x27\n'
		done
	} | "$here/psql-sys.sh" -Atq -v ON_ERROR_STOP=1 -v instance="$instance" -v first_run= -f -
}

migrations() {
	local file name
	echo 'COPY pg_temp.known_migrations FROM STDIN;'
	for file in "$root"/db/migrations/[0-9]*.sql; do
		name=${file##*/}
		printf '%d\t%s\n' "$((10#${name%%_*}))" "$(sha384sum <"$file" | cut -d ' ' -f 1)"
	done
	echo '\.'
}

# Into a file first, so that an engine that fails half-way loads nothing.
{
	cat -- "$root/crates/kodo-store/sql/session.sql"
	engine
	migrations
} >"$rows"
PGOPTIONS="${PGOPTIONS:-} -c client_min_messages=warning" "$here/psql-app.sh" -q -v ON_ERROR_STOP=1 -f - "$@" <"$rows"
