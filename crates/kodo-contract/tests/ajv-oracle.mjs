// Writes ajv-oracle.json: what Ajv 8 itself says about a table of bodies, in the order that our contract fixes.
// The test `ajv_oracle.rs` holds the crate to it. To write it anew, after a change of a schema or of this table:
//
//     mkdir -p /tmp/ajv && npm install --prefix /tmp/ajv ajv@8
//     AJV=/tmp/ajv/node_modules/ajv node crates/kodo-contract/tests/ajv-oracle.mjs

import { readFileSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { resolve } from "node:path";

const require = createRequire(import.meta.url);
const Ajv = require(`${resolve(process.env.AJV ?? "ajv")}/dist/2020.js`).default;

const hex = "0123456789abcdef0123456789abcdef";
const sha = hex + hex;
const at = "2026-01-02T03:04:05.678Z";
const step = { stepId: "plan", phase: "planning", output: null, startedAt: at, finishedAt: null };
const artifact = { kind: "file", uri: "run:/a", inline: {}, sha256: sha };
const view = { runId: `run_${hex}`, status: "queued", steps: [step], artifacts: [artifact], traceId: null };
const plan = { prompt: "p", toolCalls: [{ name: "t", args: {} }], responses: [], diffs: [] };
const result = { provider: "mock", exitCode: 0, stdout: "", stderr: "", files: [] };
const stored = { stored: true, mediaType: "text/plain", size: 65536, sha256: sha };
const entry = { stepId: "plan", index: 0, kind: "plan", name: null, mediaType: "application/json", size: 2, sha256: sha, uri: "a", stored: true };
const intent = { goal: "g", inputs: {}, constraints: {} };

// Texts stand for bodies that a JavaScript literal cannot spell.
const table = {
  intent: [
    intent,
    { ...intent, connectors: [] },
    { ...intent, connectors: null },
    { ...intent, connectors: ["a", ""] },
    {},
    [],
    null,
    true,
    0,
    "x",
    { goal: "" },
    { goal: "" , inputs: [], constraints: null, connectors: "x" },
    { goal: 1, inputs: 1, constraints: "1", connectors: {} },
    { ...intent, goal: "😀" },
    { ...intent, goal: null },
    { ...intent, goal: ["g"] },
    { ...intent, connectors: [1, "a", null, {}, [], true] },
    { ...intent, connectors: false },
    { ...intent, connectors: 0 },
    { ...intent, zeta: 1, alpha: 2, "a/b~c": 3, "": 4, "with space": 5, "quote'\"": 6, "é": 7 },
    { zeta: 1, constraints: {}, extra: null },
    { connectors: [7], Goal: "x", goal: "", inputs: null },
    '{"goal":"g","inputs":{},"constraints":{},"__proto__":{"a":1}}',
    '{"goal":"g","inputs":{},"constraints":{},"toString":1,"hasOwnProperty":2}',
    '{"goal":"g","goal":"","inputs":{},"constraints":{}}',
    { ...intent, inputs: { goal: "", connectors: 1, nested: { deeply: [] } } },
  ],
  "run-request": [
    {},
    { traceId: null },
    { traceId: "" },
    { traceId: "t" },
    { traceId: 7 },
    { traceId: ["t"] },
    { traceId: false, TraceId: "t", other: 1 },
    [],
    null,
    "",
  ],
  "run-view": [
    view,
    {},
    { ...view, status: "cancelled" },
    { ...view, status: 7 },
    { ...view, runId: `run_${hex.toUpperCase()}`, traceId: 1 },
    { ...view, runId: null, steps: {}, artifacts: null },
    { ...view, steps: [{}, { ...step, phase: "thinking", extra: 1, startedAt: "now" }, 3] },
    { ...view, steps: [{ ...step, startedAt: "2023-02-29T00:00:00.000Z", finishedAt: "2024-02-29T00:00:00.000Z" }] },
    { ...view, steps: [{ ...step, startedAt: null, finishedAt: 5, stepId: "" }] },
    { ...view, steps: Array.from({ length: 12 }, (_, i) => ({ ...step, stepId: i % 2 ? i : "plan" })) },
    { ...view, artifacts: [{ ...artifact, sha256: sha + "\n" }, { kind: 1 }, { ...artifact, uri: null, size: 3 }] },
  ],
  "run-error": [
    { code: "c", message: "", stepId: null },
    { code: "c", message: "m", stepId: "tool-001" },
    { code: "", message: 1, stepId: "a b" },
    { code: "c", message: "m" },
    { code: "c", message: "m", stepId: "x".repeat(257) },
  ],
  plan: [
    plan,
    {},
    { ...plan, toolCalls: Array(256).fill(plan.toolCalls[0]) },
    { ...plan, toolCalls: Array(257).fill(plan.toolCalls[0]) },
    { ...plan, toolCalls: [{ name: "", args: [] }, { args: {} }, { name: "x".repeat(129), args: {}, id: 1 }, null] },
    { ...plan, toolCalls: [{ name: "😀".repeat(128), args: {} }] },
    { ...plan, toolCalls: [{ ...plan.toolCalls[0], id: "a", deps: [] }, { ...plan.toolCalls[0], deps: ["a"], extra: 1 }] },
    { ...plan, toolCalls: [{ ...plan.toolCalls[0], id: "", deps: ["", "x".repeat(129), 1] }] },
    { ...plan, toolCalls: [{ ...plan.toolCalls[0], id: null, deps: null }, { ...plan.toolCalls[0], deps: Array(257).fill("a") }] },
    { ...plan, toolCalls: [...Array(256).fill(plan.toolCalls[0]), { name: "" }] },
    { prompt: null, toolCalls: null, responses: null, diffs: null, prompts: 1 },
  ],
  "tool-result": [
    result,
    { ...result, exitCode: -1, files: [{ name: "a", content: "", sha256: sha }] },
    '{"provider":"mock","exitCode":1.0,"stdout":"","stderr":"","files":[]}',
    '{"provider":"mock","exitCode":1e2,"stdout":"","stderr":"","files":[]}',
    { ...result, exitCode: 1.5 },
    { ...result, exitCode: "0" },
    { ...result, exitCode: 2147483648 },
    { ...result, exitCode: -2147483649 },
    { ...result, provider: "", files: [{ name: "", content: 1, sha256: "x" }, {}] },
    { ...result, files: [{ name: "a", sha256: sha, size: 65536, executable: true, stored: true }] },
    { ...result, files: [{ name: "a", content: null, sha256: sha, size: -1, executable: 1, stored: "yes" }] },
  ],
  "stored-content": [
    stored,
    { ...stored, name: "a", executable: false },
    '{"stored":true,"mediaType":"text/plain","size":6.5536e4,"sha256":"' + sha + '"}',
    { ...stored, stored: 1, mediaType: "", size: 1.5, sha256: sha.toUpperCase(), name: "", place: "x" },
    {},
  ],
  "artifact-list": [
    { runId: `run_${hex}`, artifacts: [entry] },
    { runId: `run_${hex}`, artifacts: [{ ...entry, name: "a", index: 1e3, stored: false }] },
    { runId: "run_1", artifacts: [{ ...entry, index: -1, size: 2 ** 53, name: 1, mediaType: "" }, {}] },
    { artifacts: null, more: 1 },
  ],
};

// Each violation's place: level by level, `required` first, then additional properties, then the rest of the level in
// schema order, then what is nested in it.
function rank(schema, body, error) {
  const path = [];
  const [, ...keywords] = error.schemaPath.split("/");
  const tokens = error.instancePath.split("/").slice(1);
  const keyword = keywords.pop();
  while (keywords.length > 0) {
    const descent = keywords.shift();
    const token = tokens.shift();
    body = body[token];
    if (descent === "items") {
      schema = schema.items;
      path.push([3, Number(token)]);
    } else {
      const name = keywords.shift();
      path.push([3, Object.keys(schema.properties).indexOf(name)]);
      schema = schema.properties[name];
    }
  }
  if (keyword === "required") path.push([0, schema.required.indexOf(error.params.missingProperty)]);
  else if (keyword === "additionalProperties")
    path.push([1, Object.keys(body).indexOf(error.params.additionalProperty)]);
  else path.push([2, Object.keys(schema).indexOf(keyword)]);
  return path.flat();
}

function compare(a, b) {
  const at = a.findIndex((part, index) => part !== b[index]);
  return at < 0 ? a.length - b.length : a[at] - (b[at] ?? -1);
}

const ajv = new Ajv({ allErrors: true, allowUnionTypes: true });
const rows = Object.entries(table).flatMap(([name, bodies]) => {
  const schema = JSON.parse(readFileSync(new URL(`../schemas/${name}.json`, import.meta.url), "utf8"));
  const validate = ajv.compile(schema);
  return bodies.map((entry) => {
    const isText = typeof entry === "string" && entry.startsWith("{");
    const body = isText ? entry : JSON.stringify(entry);
    const parsed = JSON.parse(body);
    validate(parsed);
    const errors = (validate.errors ?? [])
      .map((error) => [rank(schema, parsed, error), error])
      .sort(([a], [b]) => compare(a, b))
      .map(([, error]) => error);
    return { schema: schema.title, body, errors, text: ajv.errorsText(errors, { separator: "; " }) };
  });
});
const lines = rows.map((row) => `  ${JSON.stringify(row)}`).join(",\n");
writeFileSync(new URL("ajv-oracle.json", import.meta.url), `[\n${lines}\n]\n`);
console.log(`${rows.length} rows`);
