#!/usr/bin/env bash
# OpenCode: structured output is not held to its schema, and a session that used it can no longer list its messages.
#
# Software: npm opencode-ai 1.18.33 (Linux x64, `opencode serve`), with a scripted OpenAI-compatible model on loopback.
#
# A message is posted with `format: {type: "json_schema", schema}`; OpenCode offers the model a tool `StructuredOutput`
# with that schema. Expected, by OpenCode's own documentation of structured output and its OpenAPI document (GET /doc):
# `info.structured` holds data that matches the schema, or `info.error` is a StructuredOutputError after `retryCount`
# further tries (2 if it is not given); GET /session/{id}/message lists the session's messages.
#
# Instead:
#   1. The model calls the tool with {"wrong": true} for a schema that requires an integer `n` and forbids all else. The
#      reply is 200 with `info.structured = {"wrong": true}` and no error; the model is asked once, there is no retry.
#   2. After any such message, right or wrong, GET /session/{id}/message answers 400 for good: the server rejects the
#      `format` that it stored itself, as if the caller had sent a bad request. Single messages (GET
#      /session/{id}/message/{messageID}) still work. A session without `format` lists its messages.
#
# Meaning: validate `info.structured` yourself and repair it yourself; take the result from the answer to POST (or from the
# single message), for history that is listed later is lost to the API.
#
# Seen:
#   no format: 200, messages listed: 200
#   matching: 200, structured {"n": 1}, error None, model asked 1 time
#   matching, messages listed: 400 Expected OutputFormatJsonSchema; the single message: 200
#   not matching: 200, structured {"wrong": true}, error None, model asked 1 time
#   not matching, messages listed: 400 Expected OutputFormatJsonSchema; the single message: 200
set -euo pipefail
# shellcheck source=findings/lib.bash
. "$(dirname "$0")/lib.bash"
work=$(mktemp -d)
chmod 755 "$work"
npm_install oc opencode-linux-x64@1.18.33

# A home of its own. The three files keep OpenCode from fetching its plugin package at the start.
home=$work/home
mkdir -p "$home/.config/opencode/node_modules" "$home/project"
echo '{"dependencies":{"@opencode-ai/plugin":"*"}}' >"$home/.config/opencode/package.json"
echo '{"name":"opencode","lockfileVersion":3,"requires":true,"packages":{"":{"dependencies":{"@opencode-ai/plugin":"*"}}}}' \
  >"$home/.config/opencode/package-lock.json"

cat >"$work/model.py" <<'PY'
import http.server, json, sys

class Model(http.server.BaseHTTPRequestHandler):
    def log_message(self, *args):
        pass

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        with open(sys.argv[2], "a") as count:
            count.write("asked\n")
        text = json.dumps(asked["messages"])
        arguments = '{"wrong": true}' if "not matching" in text else '{"n": 1}'
        if "no format" in text:
            deltas, end = [{"role": "assistant", "content": "hello"}], "stop"
        else:
            deltas, end = [{"role": "assistant", "tool_calls": [{"index": 0, "id": "t1", "type": "function", "function":
                            {"name": "StructuredOutput", "arguments": arguments}}]}], "tool_calls"
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.end_headers()
        for delta, finish in [(d, None) for d in deltas] + [({}, end)]:
            chunk = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m",
                     "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}
            self.wfile.write(f"data: {json.dumps(chunk)}\n\n".encode())
        self.wfile.write(b"data: [DONE]\n\n")

http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Model).serve_forever()
PY
model_port=$(free_port)
python3 "$work/model.py" "$model_port" "$work/asked" &
pids+=($!)

cat >"$home/opencode.json" <<JSON
{ "model": "local/m", "small_model": "local/m", "enabled_providers": ["local"], "autoupdate": false, "share": "disabled",
  "provider": { "local": { "npm": "@ai-sdk/openai-compatible", "name": "Local",
    "options": { "baseURL": "http://127.0.0.1:$model_port/v1", "apiKey": "none" },
    "models": { "m": { "name": "m", "tool_call": true, "limit": { "context": 8192, "output": 1024 } } } } },
  "permission": { "*": "deny", "StructuredOutput": "allow" } }
JSON
for name in MODELS_FETCH AUTOUPDATE LSP_DOWNLOAD DEFAULT_PLUGINS SHARE PROJECT_CONFIG CLAUDE_CODE EXTERNAL_SKILLS EMBEDDED_WEB_UI; do
  export "OPENCODE_DISABLE_$name=1"
done
export OPENCODE_SERVER_USERNAME=finding OPENCODE_SERVER_PASSWORD=finding
port=$(free_port)
cd "$home/project"
HOME=$home XDG_CONFIG_HOME=$home/.config XDG_DATA_HOME=$home/.local/share XDG_CACHE_HOME=$home/.cache \
  XDG_STATE_HOME=$home/.state OPENCODE_CONFIG=$home/opencode.json NO_PROXY='*' \
  "$work/oc/node_modules/opencode-linux-x64/bin/opencode" serve --pure --hostname 127.0.0.1 --port "$port" >"$work/oc.log" 2>&1 &
pids+=($!)

cat >"$work/probe.py" <<'PY'
import base64, json, sys, time, urllib.error, urllib.request

base, count = sys.argv[1:]
opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
key = "Basic " + base64.b64encode(b"finding:finding").decode()

def call(method, path, body=None):
    request = urllib.request.Request(base + path, method=method, data=None if body is None else json.dumps(body).encode(),
                                     headers={"content-type": "application/json", "authorization": key})
    try:
        with opener.open(request, timeout=60) as reply:
            return reply.status, json.load(reply)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)

for _ in range(120):
    try:
        if call("GET", "/global/health")[0] == 200:
            break
    except OSError:
        time.sleep(0.5)

SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"], "additionalProperties": False}

def asked():
    try:
        return open(count).read().count("asked")
    except FileNotFoundError:
        return 0

for name in ("no format", "matching", "not matching"):
    session = call("POST", "/session", {"title": name})[1]["id"]
    body = {"model": {"providerID": "local", "modelID": "m"}, "parts": [{"type": "text", "text": name}]}
    if name != "no format":
        body["format"] = {"type": "json_schema", "schema": SCHEMA}
    before = asked()
    status, reply = call("POST", f"/session/{session}/message", body)
    info = reply["info"]
    listed, page = call("GET", f"/session/{session}/message")
    if name == "no format":
        print(f"{name}: {status}, messages listed: {listed}")
        continue
    print(f"{name}: {status}, structured {json.dumps(info.get('structured'))}, error {info.get('error')},",
          f"model asked {asked() - before} time")
    one, _ = call("GET", f"/session/{session}/message/{info['id']}")
    print(f"{name}, messages listed: {listed}", page["data"]["message"].split(",")[0] + ";", f"the single message: {one}")
PY
python3 "$work/probe.py" "http://127.0.0.1:$port" "$work/asked" >"$work/seen"
expect 'no format: 200, messages listed: 200
matching: 200, structured {"n": 1}, error None, model asked 1 time
matching, messages listed: 400 Expected OutputFormatJsonSchema; the single message: 200
not matching: 200, structured {"wrong": true}, error None, model asked 1 time
not matching, messages listed: 400 Expected OutputFormatJsonSchema; the single message: 200' <"$work/seen"
