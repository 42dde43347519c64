#!/usr/bin/env bash
# Pgpool-II in raw mode: an autocommitted INSERT is answered `INSERT 0 1` and the row is never stored.
#
# Software: Debian 12's pgpool2 4.3.5-1+deb12u1, PostgreSQL 17.9 (npm), PyPI psycopg 3.3.9. Runs on Debian 12, amd64.
#
# One Postgres, Pgpool-II before it with `backend_clustering_mode = 'raw'` (one server, no replication), a client in
# autocommit mode. Expected: a statement outside of BEGIN is a transaction of its own and is committed when the server
# has answered it (PostgreSQL, "Transactions": each statement is implicitly committed; protocol, "Pipelining": at Sync
# the implicit transaction is closed).
#
# Instead: the first write that is sent by the *extended* protocol (with parameters apart from the text, as most drivers send it)
# is put into a transaction that Pgpool-II opens by itself and does not close. The answer is `INSERT 0 1`, and
# ReadyForQuery says "in a transaction" to a client that began none. Nobody else sees the row, later writes of this
# connection go the same way, including those by the simple protocol, and all is rolled back when the client leaves.
# The same INSERT with its values in the text (simple protocol) is stored. `backend_clustering_mode =
# 'streaming_replication'` with the same single server stores both.
#
# Meaning: behind Pgpool-II in raw mode a service on a driver with parameters loses every such write, with success as the
# answer, unless it opens its transactions itself. A try-out with psql -c shows nothing. Read the row back by another connection.
#
# Seen:
#   raw, simple protocol: INSERT 0 1, status IDLE, others see [1]
#   raw, extended protocol: INSERT 0 1, status INTRANS, others see [1]
#   raw, simple protocol after it: INSERT 0 1, status INTRANS, others see [1]
#   raw, BEGIN and COMMIT by the client: INSERT 0 1, status IDLE, others see [1, 4]
#   raw, after the clients have left: [1, 4]
#   streaming_replication, simple protocol: INSERT 0 1, status IDLE, others see [1]
#   ... (as it should be, to the end)
set -euo pipefail
# shellcheck source=findings/lib.bash
. "$(dirname "$0")/lib.bash"
work=$(mktemp -d)
chmod 755 "$work"
pip_install py 'psycopg[binary]==3.3.9'
deb_unpack pool pgpool2=4.3.5-1+deb12u1 libmemcached11 libhashkit2
start_postgres

start_pgpool() { # MODE; sets pool_port
  pool_port=$(free_port)
  mkdir "$work/$1"
  cat >"$work/$1/pgpool.conf" <<CONF
backend_clustering_mode = '$1'
listen_addresses = '127.0.0.1'
port = $pool_port
socket_dir = '$work/$1'
pcp_port = $(free_port)
pcp_socket_dir = '$work/$1'
backend_hostname0 = '127.0.0.1'
backend_port0 = $pg_port
backend_flag0 = 'ALWAYS_PRIMARY'
enable_pool_hba = off
pid_file_name = '$work/$1/pid'
logdir = '$work/$1'
work_dir = '$work/$1'
num_init_children = 4
sr_check_period = 0
CONF
  LD_LIBRARY_PATH="$work/pool/usr/lib/x86_64-linux-gnu" "$work/pool/usr/sbin/pgpool" -n -f "$work/$1/pgpool.conf" >"$work/$1/log" 2>&1 &
  pids+=($!)
}

cat >"$work/probe.py" <<'PY'
import sys, time
import psycopg

mode, pg_port, pool_port = sys.argv[1:]
address = "host=127.0.0.1 user=postgres dbname=postgres sslmode=disable connect_timeout=5 port="
direct = psycopg.connect(address + pg_port, autocommit=True)
direct.execute("DROP TABLE IF EXISTS t")
direct.execute("CREATE TABLE t (x int)")

def pooled():
    for _ in range(100):
        try:
            return psycopg.connect(address + pool_port, autocommit=True)
        except psycopg.OperationalError:
            time.sleep(0.1)
    raise SystemExit("Pgpool-II does not answer")

def stored():
    return [x for (x,) in direct.execute("SELECT x FROM t ORDER BY x")]

def show(name, client, answer):
    print(f"{mode}, {name}: {answer}, status {client.info.transaction_status.name}, others see {stored()}")

client = pooled()
show("simple protocol", client, client.execute("INSERT INTO t VALUES (1)").statusmessage)
show("extended protocol", client, client.execute("INSERT INTO t VALUES (%s)", [2]).statusmessage)
show("simple protocol after it", client, client.execute("INSERT INTO t VALUES (3)").statusmessage)
client.close()
client = pooled()
client.execute("BEGIN")
answer = client.execute("INSERT INTO t VALUES (%s)", [4]).statusmessage
client.execute("COMMIT")
show("BEGIN and COMMIT by the client", client, answer)
client.close()
time.sleep(0.5)
print(f"{mode}, after the clients have left: {stored()}")
PY

{
  for mode in raw streaming_replication; do
    start_pgpool $mode
    "$work/py/bin/python" "$work/probe.py" $mode "$pg_port" "$pool_port"
  done
} >"$work/seen"
expect "raw, simple protocol: INSERT 0 1, status IDLE, others see [1]
raw, extended protocol: INSERT 0 1, status INTRANS, others see [1]
raw, simple protocol after it: INSERT 0 1, status INTRANS, others see [1]
raw, BEGIN and COMMIT by the client: INSERT 0 1, status IDLE, others see [1, 4]
raw, after the clients have left: [1, 4]
streaming_replication, simple protocol: INSERT 0 1, status IDLE, others see [1]
streaming_replication, extended protocol: INSERT 0 1, status IDLE, others see [1, 2]
streaming_replication, simple protocol after it: INSERT 0 1, status IDLE, others see [1, 2, 3]
streaming_replication, BEGIN and COMMIT by the client: INSERT 0 1, status IDLE, others see [1, 2, 3, 4]
streaming_replication, after the clients have left: [1, 2, 3, 4]" <"$work/seen"
