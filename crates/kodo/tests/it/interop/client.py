"""One call of DBOS's Python client, as an operator's script makes it: URL VERB WORKFLOW [STEP]. Prints JSON."""

import json
import sys

from dbos import DBOSClient

url, verb, workflow, *rest = sys.argv[1:]
client = DBOSClient(system_database_url=url)
answer = None
if verb == "list":
    found = client.list_workflows(workflow_ids=[workflow])
    answer = [[row.workflow_id, row.status, row.name] for row in found]
elif verb == "steps":
    answer = [step["function_name"] for step in client.list_workflow_steps(workflow)]
elif verb == "cancel":
    client.cancel_workflow(workflow)
elif verb == "resume":
    client.resume_workflow(workflow)
elif verb == "fork":
    answer = client.fork_workflow(workflow, int(rest[0])).get_workflow_id()
elif verb == "delete":
    client.delete_workflow(workflow)
else:
    sys.exit(f"unknown verb {verb}")
client.destroy()
print(json.dumps(answer))
