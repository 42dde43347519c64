#!/usr/bin/env bash
# DBOS: the launch of a newer SDK rewrites the system tables under a running older one, which then reads results as None.
#
# Software: PyPI dbos 2.31.1 and dbos 3.4.0, two applications' processes on one system database, PostgreSQL 17.9 (npm).
#
# Expected: DBOS's system tables are shared by the processes of an application (a rolling upgrade has both versions at
# once) and by its tools. A launch that finds a database in use at an older schema (108) either works with it, refuses, or
# keeps to changes that the older release survives; an older release that finds a schema newer than its own says so.
#
# Instead: 3.4.0 migrates 108 to 125 at its launch without being asked and without a line in the log above INFO, though
# 2.31.1 is running. 2.31.1 notices nothing and keeps working on its own rows. But inputs and outputs of workflows that
# 3.4.0 writes are kept elsewhere now, and 2.31.1 reads their columns as empty:
#   - the result of a finished workflow is None: no exception, status SUCCESS. A caller cannot tell it from a real None;
#   - a workflow that 3.4.0's client enqueues for 2.31.1's queue is taken, fails with a TypeError in the log before its
#     body runs, and stays PENDING for ever: no error is recorded in its row, whoever awaits it waits on;
#   - there is no way back: 3.4.0 has no migration down.
# The other way round it is loud: 3.4.0's client on the schema of 2.31.1 raises UndefinedTable.
#
# Meaning: a system database belongs to one SDK release. One start of a newer one (an upgraded worker, a colleague's
# script that calls launch) suffices. Give other applications a system database or schema of their own, and upgrade with all
# workers stopped.
#
# Seen:
#   schema before: 108
#   client of 3.4.0 lists: ProgrammingError (relation "dbos.workflow_input" does not exist)
#   3.4.0 launches and runs new-1: new-1:7; warnings and errors logged: 0
#   schema after: 125
#   3.4.0 reads the result of new-1: new-1:7
#   2.31.1, still running, runs old-2: old-2:7
#   2.31.1 reads new-1: status SUCCESS, input None, result None
#   2.31.1, after it took new-2 from its queue: status PENDING, error None
#   2.31.1 logged: 'NoneType' object is not subscriptable
set -euo pipefail
# shellcheck source=findings/lib.bash
. "$(dirname "$0")/lib.bash"
work=$(mktemp -d)
chmod 755 "$work"
pip_install old dbos==2.31.1
pip_install new dbos==3.4.0
start_postgres
export SYSTEM_DATABASE="postgresql://postgres@127.0.0.1:$pg_port/finding"
unset DBOS_DATABASE_URL

cat >"$work/schema.py" <<'PY'
import os, psycopg
with psycopg.connect(os.environ["SYSTEM_DATABASE"]) as c:
    print(c.execute("SELECT version FROM dbos.dbos_migrations").fetchone()[0])
PY

# One application; it obeys the lines of its standard input and answers each with one line.
cat >"$work/app.py" <<'PY'
import logging, os, sys, time
from dbos import DBOS, Queue, SetWorkflowID

executor = sys.argv[1]
DBOS(config={"name": "finding", "system_database_url": os.environ["SYSTEM_DATABASE"],
             "application_version": "1", "executor_id": executor})

logged = []
class Keep(logging.Handler):
    def emit(self, record):
        if record.levelno >= logging.WARNING and "same name as an in-memory queue" not in record.getMessage():
            logged.append(record.getMessage())
logging.getLogger("dbos").addHandler(Keep())

@DBOS.workflow()
def pay(name, amount):
    return f"{name}:{amount}"

if executor == "old":
    Queue("q")
DBOS.launch()
print("launched", flush=True)
for line in sys.stdin:
    command, name = line.split()
    if command == "run":
        with SetWorkflowID(name):
            answer = DBOS.start_workflow(pay, name, 7).get_result()
    elif command == "result":
        answer = DBOS.retrieve_workflow(name).get_result()
    elif command == "read":
        row = DBOS.get_workflow_status(name)
        answer = f"status {row.status}, input {row.input}, result {DBOS.retrieve_workflow(name).get_result()}"
    elif command == "taken":
        for _ in range(100):
            row = DBOS.get_workflow_status(name)
            if row.status != "ENQUEUED" and any(name in text for text in logged):
                break
            time.sleep(0.1)
        time.sleep(3)
        row = DBOS.get_workflow_status(name)
        answer = f"status {row.status}, error {row.error}"
    elif command == "logged":
        answer = logged[-1].split(": ", 1)[1] if name == "last" else len(logged)
    print(answer, flush=True)
DBOS.destroy()
PY

cat >"$work/client.py" <<'PY'
import os, sys
from dbos import DBOSClient
client = DBOSClient(system_database_url=os.environ["SYSTEM_DATABASE"])
if sys.argv[1] == "list":
    try:
        print(len(client.list_workflows()))
    except Exception as error:
        print(f"{type(error).__name__} ({str(error).splitlines()[0].split(') ', 1)[1]})")
else:
    client.enqueue({"queue_name": "q", "workflow_name": "pay", "workflow_id": sys.argv[2], "app_version": "1"}, sys.argv[2], 9)
PY

coproc OLD { exec "$work/old/bin/python" "$work/app.py" old 2>"$work/old.log"; }
old_pid=$OLD_PID
pids+=("$old_pid")
exec {to_old}>&"${OLD[1]}" {from_old}<&"${OLD[0]}"
ask_old() {
  local answer
  if [ -n "${1:-}" ]; then echo "$1" >&"$to_old"; fi
  read -r -t 90 answer <&"$from_old" || { tail -20 "$work/old.log" >&2; exit 1; }
  echo "$answer"
}
new_app() { printf '%s\n' "$@" | "$work/new/bin/python" "$work/app.py" new 2>"$work/new.log"; }

{
  ask_old >/dev/null
  ask_old "run old-1" >/dev/null
  echo "schema before: $("$work/new/bin/python" "$work/schema.py")"
  echo "client of 3.4.0 lists: $("$work/new/bin/python" "$work/client.py" list 2>/dev/null)"
  mapfile -t new < <(new_app "run new-1" "result new-1" "logged count")
  echo "3.4.0 launches and runs new-1: ${new[1]}; warnings and errors logged: ${new[3]}"
  echo "schema after: $("$work/new/bin/python" "$work/schema.py")"
  echo "3.4.0 reads the result of new-1: ${new[2]}"
  echo "2.31.1, still running, runs old-2: $(ask_old "run old-2")"
  echo "2.31.1 reads new-1: $(ask_old "read new-1")"
  "$work/new/bin/python" "$work/client.py" enqueue new-2 2>/dev/null
  echo "2.31.1, after it took new-2 from its queue: $(ask_old "taken new-2")"
  echo "2.31.1 logged: $(ask_old "logged last")"
} >"$work/seen"
expect "schema before: 108
client of 3.4.0 lists: ProgrammingError (relation \"dbos.workflow_input\" does not exist)
3.4.0 launches and runs new-1: new-1:7; warnings and errors logged: 0
schema after: 125
3.4.0 reads the result of new-1: new-1:7
2.31.1, still running, runs old-2: old-2:7
2.31.1 reads new-1: status SUCCESS, input None, result None
2.31.1, after it took new-2 from its queue: status PENDING, error None
2.31.1 logged: 'NoneType' object is not subscriptable" <"$work/seen"
