#!/usr/bin/env bash
# psql on the product database; all arguments go to psql.
set -euo pipefail
# shellcheck source=scripts/db/psql.sh
source "$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")/psql.sh"
run_psql "${APP_DB_NAME:-app_local}" "$@"
