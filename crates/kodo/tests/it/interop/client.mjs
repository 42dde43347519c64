// One call of DBOS's TypeScript client, as an operator's script makes it: URL VERB WORKFLOW [STEP]. Prints JSON.
import { createRequire } from "node:module";

const { DBOSClient } = createRequire(process.env.KODO_TEST_DBOS_NODE)("@dbos-inc/dbos-sdk");
const [url, verb, workflow, step] = process.argv.slice(2);
const client = await DBOSClient.create({ systemDatabaseUrl: url });
let answer = null;
switch (verb) {
  case "list":
    answer = (await client.listWorkflows({ workflowIDs: [workflow] })).map((row) => [row.workflowID, row.status, row.workflowName]);
    break;
  case "steps":
    answer = (await client.listWorkflowSteps(workflow)).map((step) => step.name);
    break;
  case "cancel":
    await client.cancelWorkflow(workflow);
    break;
  case "resume":
    await client.resumeWorkflow(workflow);
    break;
  case "fork":
    answer = await client.forkWorkflow(workflow, Number(step));
    break;
  case "delete":
    await client.deleteWorkflow(workflow);
    break;
  default:
    throw new Error(`unknown verb ${verb}`);
}
await client.destroy();
console.log(JSON.stringify(answer));
