#!/usr/bin/env bash
# PgBouncer: after one client asked for a database that is not there, the next ones wait 15 s, even if it is there by then.
#
# Software: Debian 12's pgbouncer 1.18.0-1+deb12u1, PostgreSQL 17.9 (npm). Runs on Debian 12, amd64.
#
# Session mode, `* = host=...` (any database of the server), `server_login_retry` left at 15. Expected, by pgbouncer(5):
# in the time after a failed login "new clients trying to connect to the failing server will get an error immediately";
# and that a missing database is reported as the server reports it, SQLSTATE 3D000 (invalid_catalog_name).
#
# Instead: the first client is refused at once, but with 08P01 (protocol_violation) and the server's text. The second gets
# no error: it waits for the rest of the 15 s, then gets the answer of a new login. That is so too if the database was
# created right after the first refusal: a client that would be served now waits out the interval in silence. All other
# databases answer at once meanwhile.
#
# Meaning: the customary start of a service (connect; on 3D000 create the database by a maintenance connection; connect
# again) fails twice behind PgBouncer: the code to look for never comes, and who matches the text instead runs into a
# silence that exceeds common connect timeouts (5 s, 10 s). Create databases before anything connects by PgBouncer, or
# set server_login_retry to 1.
#
# Seen:
#   server itself: 3D000 at once
#   first client: 08P01 database "late" does not exist, at once
#   the database is created: served by the server itself at once
#   second client: served, after more than 10 s
#   another database meanwhile: served, at once
#   third client: served, at once
set -euo pipefail
# shellcheck source=findings/lib.bash
. "$(dirname "$0")/lib.bash"
work=$(mktemp -d)
chmod 755 "$work"
deb_unpack pool pgbouncer=1.18.0-1+deb12u1 libc-ares2 libevent-2.1-7
start_postgres

port=$(free_port)
mkdir "$work/bouncer"
cat >"$work/bouncer/ini" <<CONF
[databases]
* = host=127.0.0.1 port=$pg_port user=postgres
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = $port
unix_socket_dir =
auth_type = any
pool_mode = session
CONF
LD_LIBRARY_PATH="$work/pool/usr/lib/x86_64-linux-gnu" "${as_user[@]}" "$work/pool/usr/sbin/pgbouncer" -q "$work/bouncer/ini" >"$work/log" 2>&1 &
pids+=($!)
for _ in $(seq 100); do (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null && break; sleep 0.1; done

# A client of the protocol's first steps, so that the SQLSTATE is seen (libpq does not give it for a failed connect).
cat >"$work/probe.py" <<'PY'
import socket, struct, sys, threading, time

server, bouncer = map(int, sys.argv[1:])

def message(s):
    head = b""
    while len(head) < 5:
        part = s.recv(5 - len(head))
        if not part:
            raise SystemExit("the connection was closed")
        head += part
    body, size = b"", struct.unpack("!I", head[1:])[0] - 4
    while len(body) < size:
        body += s.recv(size - len(body))
    return head[:1], body

def connect(port, database, sql=None):
    begun = time.monotonic()
    with socket.create_connection(("127.0.0.1", port), timeout=60) as s:
        start = struct.pack("!I", 196608) + b"user\0postgres\0database\0" + database.encode() + b"\0\0"
        s.sendall(struct.pack("!I", len(start) + 4) + start)
        while True:
            kind, body = message(s)
            if kind == b"E":
                fields = {f[:1]: f[1:].decode() for f in body.split(b"\0") if f}
                answer = fields[b"C"] + " " + fields[b"M"]
                break
            if kind == b"Z" and sql:
                s.sendall(b"Q" + struct.pack("!I", len(sql) + 5) + sql.encode() + b"\0")
                sql = None
            elif kind == b"Z":
                answer = "served"
                s.sendall(b"X\0\0\0\4")
                break
    took = time.monotonic() - begun
    return answer, "at once" if took < 3 else "after more than 10 s" if took > 10 else f"after {took:.1f} s"

def show(name, answer):
    print(f"{name}: {answer[0]}, {answer[1]}", flush=True)

show("server itself", connect(server, "late"))
show("first client", connect(bouncer, "late"))
connect(server, "postgres", "CREATE DATABASE late")
show("the database is created, server itself", connect(server, "late"))
second = []
waiting = threading.Thread(target=lambda: second.append(connect(bouncer, "late")))
waiting.start()
time.sleep(1)
other = connect(bouncer, "postgres")
waiting.join()
show("second client", second[0])
show("another database meanwhile", other)
show("third client", connect(bouncer, "late"))
PY
python3 "$work/probe.py" "$pg_port" "$port" >"$work/seen"
expect 'server itself: 3D000 database "late" does not exist, at once
first client: 08P01 database "late" does not exist, at once
the database is created, server itself: served, at once
second client: served, after more than 10 s
another database meanwhile: served, at once
third client: served, at once' <"$work/seen"
