#!/usr/bin/env bash
# psql on the product database, in a session that has loaded what the views app.invariant_… need to know of the other one:
# the engine's rows, and the migrations of this checkout. All arguments go to psql; `-c QUERY` or `-f FILE` is needed.
#
# The rows are a moment older than the query. On a service that is at work look twice: what is gone by then was in passing.
set -euo pipefail
here=$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")
root=$(CDPATH='' cd -- "$here/../.." && pwd -P)
if (($# == 0)); then
	echo "scripts/db/psql-both.sh: which query? -c 'SELECT * FROM app.invariant_statuses_agree'" >&2
	exit 2
fi
instance=$("$here/psql-app.sh" -Atq -v ON_ERROR_STOP=1 -c 'SELECT id FROM app.instance')
rows=$(mktemp)
trap 'rm -f "$rows"' EXIT

# load TABLE COMMAND...: what the command prints becomes the content of the session's table. Written to a file first, so
# that a command that fails half-way loads nothing.
load() {
	local table=$1
	shift
	printf 'COPY pg_temp.%s FROM STDIN;\n' "$table" >>"$rows"
	"$@" >>"$rows"
	printf '\\.\n' >>"$rows"
}

engine() {
	{
		echo 'COPY ('
		cat -- "$root/crates/kodo-workflow/sql/$1.sql"
		echo ') TO STDOUT;'
	} | "$here/psql-sys.sh" -Atq -v ON_ERROR_STOP=1 -v instance="$instance" -f -
}

migrations() {
	local file name
	for file in "$root"/db/migrations/[0-9]*.sql; do
		name=${file##*/}
		printf '%d\t%s\n' "$((10#${name%%_*}))" "$(sha384sum <"$file" | cut -d ' ' -f 1)"
	done
}

cat -- "$root/crates/kodo-store/sql/engine_rows.sql" >"$rows"
load engine_workflows engine workflows
load engine_checkpoints engine checkpoints
load engine_workers engine workers
load engine_relations engine relations
load known_migrations migrations
PGOPTIONS="${PGOPTIONS:-} -c client_min_messages=warning" "$here/psql-app.sh" -q -v ON_ERROR_STOP=1 -f - "$@" <"$rows"
