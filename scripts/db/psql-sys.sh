#!/usr/bin/env bash
# psql on the DBOS system database; all arguments go to psql.
set -euo pipefail
# shellcheck source=scripts/db/psql.sh
source "$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")/psql.sh"
run_psql "${SYS_DB_NAME:-dbos_sys}" "$@"
