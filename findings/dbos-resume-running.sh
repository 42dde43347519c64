#!/usr/bin/env bash
# DBOS: `resume_workflow` of a running workflow executes it a second time beside the first, past its queue's limits.
#
# Software: PyPI dbos 3.4.0 (Python), PostgreSQL 17.9 (npm).
#
# Expected, by the documentation of workflow management: resume is for workflows that are enqueued, delayed, cancelled or
# past their recovery attempts; one that is running has nothing to resume, so a call for it (a double click, a retried
# request, a look at a stale list) changes nothing or is refused, as it is for a finished one.
#
# Instead: the row goes back to ENQUEUED on the internal queue, and within about two seconds the *same process, under the
# same executor id*, runs the workflow from its last recorded step while the first execution goes on. The step under way
# is carried out twice at the same time. Both callers get the result, the row ends SUCCESS, the step list shows the step
# once; the only trace is a warning that the first execution logs at its *next* record, after its step has had its effect.
# For a workflow of a queue it does more: its place there is given free although it still runs, so a queue with
# concurrency 1 starts the next one (here three bodies run at once), and its deduplication id is dropped, so a second
# workflow with that id is accepted while the first still runs.
#
# The documented use has the same effect if it comes early: cancel does not end the step under way, so a resume of a
# CANCELLED workflow whose step has not returned yet runs that step beside itself.
#
# Meaning: guard resume yourself (read the status, allow CANCELLED and MAX_RECOVERY_ATTEMPTS_EXCEEDED only, and after a cancel
# wait until the step has returned); a step with effects outside must be safe to run twice *at once*, not just again after
# a crash; a queue with concurrency 1 is no mutual exclusion.
#
# Seen:
#   before: first PENDING on q; second ENQUEUED on q
#   a second workflow with the deduplication id: refused (DBOSQueueDeduplicatedError)
#   resume of the running workflow: accepted
#   a second workflow with the deduplication id: accepted
#   bodies at one time, of a queue with concurrency 1: 3
#   the step of the resumed workflow ran: 2 times, recorded: 1 time; both handles: paid, paid; status SUCCESS
#   cancelled (CANCELLED), resumed while its step was running: the step ran 2 times, 2 at one time; result paid
#   logged, after the fact: Workflow first is no longer owned by this execution. Waiting for the owner's recorded outcome
set -euo pipefail
# shellcheck source=findings/lib.bash
. "$(dirname "$0")/lib.bash"
work=$(mktemp -d)
chmod 755 "$work"
pip_install py dbos==3.4.0
start_postgres

cat >"$work/probe.py" <<'PY'
import logging, os, threading, time
from dbos import DBOS, SetEnqueueOptions, SetWorkflowID

os.environ.pop("DBOS_DATABASE_URL", None)
DBOS(config={"name": "finding", "system_database_url": os.environ["SYSTEM_DATABASE"],
             "application_version": "1", "executor_id": "one"})

logged = []
class Keep(logging.Handler):
    def emit(self, record):
        if record.levelno >= logging.WARNING:
            logged.append(record.getMessage())
logging.getLogger("dbos").addHandler(Keep())

lock, running, most, ran = threading.Lock(), 0, 0, {}

@DBOS.step()
def pay(name):
    global running, most
    with lock:
        running += 1
        most = max(most, running)
        ran[name] = ran.get(name, 0) + 1
    time.sleep(8)
    with lock:
        running -= 1
    return "paid"

@DBOS.workflow()
def order(name):
    return pay(name)

DBOS.launch()
DBOS.register_queue("q", concurrency=1)

def wait_for(what):
    for _ in range(600):
        if what():
            return
        time.sleep(0.05)
    raise SystemExit("waited in vain")

def enqueue(name, deduplication_id=None):
    with SetWorkflowID(name), SetEnqueueOptions(deduplication_id=deduplication_id):
        return DBOS.enqueue_workflow("q", order, name)

def twin(name):
    try:
        enqueue(name, "order-7")
        return "accepted"
    except Exception as error:
        return f"refused ({type(error).__name__})"

first = enqueue("first", "order-7")
wait_for(lambda: ran.get("first") == 1)
enqueue("second")
print("before:", "; ".join(f"{w.workflow_id} {w.status} on {w.queue_name}"
                           for w in (DBOS.get_workflow_status(i) for i in ("first", "second"))))
print("a second workflow with the deduplication id:", twin("twin"))
resumed = DBOS.resume_workflow("first")
print("resume of the running workflow: accepted")
print("a second workflow with the deduplication id:", twin("twin"))
wait_for(lambda: ran.get("first") == 2 and (ran.get("second") or ran.get("twin")))
print("bodies at one time, of a queue with concurrency 1:", most)
results = ", ".join([first.get_result(), resumed.get_result()])
wait_for(lambda: running == 0 or ran.get("twin") == 1)
steps = [s["function_name"] for s in DBOS.list_workflow_steps("first")]
print(f"the step of the resumed workflow ran: {ran['first']} times, recorded: {len(steps)} time;",
      f"both handles: {results}; status {DBOS.get_workflow_status('first').status}")
wait_for(lambda: running == 0 and all(DBOS.get_workflow_status(i).status == "SUCCESS" for i in ("first", "second", "twin")))
most = 0
with SetWorkflowID("third"):
    DBOS.start_workflow(order, "third")
wait_for(lambda: ran.get("third") == 1)
DBOS.cancel_workflow("third")
status = DBOS.get_workflow_status("third").status
result = DBOS.resume_workflow("third").get_result()
wait_for(lambda: running == 0)
print(f"cancelled ({status}), resumed while its step was running: the step ran {ran['third']} times, {most} at one time; result {result}")
print("logged, after the fact:", *[text for text in logged if "first" in text])
DBOS.destroy()
PY

SYSTEM_DATABASE="postgresql://postgres@127.0.0.1:$pg_port/finding" "$work/py/bin/python" "$work/probe.py" 2>"$work/log" >"$work/seen" || {
  tail -20 "$work/log" >&2
  exit 1
}
expect "before: first PENDING on q; second ENQUEUED on q
a second workflow with the deduplication id: refused (DBOSQueueDeduplicatedError)
resume of the running workflow: accepted
a second workflow with the deduplication id: accepted
bodies at one time, of a queue with concurrency 1: 3
the step of the resumed workflow ran: 2 times, recorded: 1 time; both handles: paid, paid; status SUCCESS
cancelled (CANCELLED), resumed while its step was running: the step ran 2 times, 2 at one time; result paid
logged, after the fact: Workflow first is no longer owned by this execution. Waiting for the owner's recorded outcome" <"$work/seen"
