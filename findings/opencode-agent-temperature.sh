#!/usr/bin/env bash
# OpenCode: an agent's `temperature` is not sent to a model that the configuration defines, while its other options are.
#
# Software: npm opencode-ai 1.18.34 (Linux x64, `opencode serve`), with a scripted OpenAI-compatible model on loopback.
#
# A provider of one's own by `@ai-sdk/openai-compatible`, as OpenCode's documentation of providers has it for local and
# self-hosted models, and an agent with `"temperature": 0.1`. Expected, by its documentation of agents: `temperature`
# sets how random the model's answers are, so each request of that agent carries it.
#
# Instead: a model that stands in the configuration counts as one that takes no temperature unless it says
# `"temperature": true`, a boolean of the same name as the agent's number, beside `name` and `limit`; neither page mentions
# it. Without it the number is dropped, 0 too, and the server's own default applies (1 in OpenAI's API). No line of the
# debug log says so, GET /agent returns the number, and `top_p` and the agent's other options (`seed` here) are sent.
#
# Meaning: an agent that is to be deterministic (temperature 0) samples at the server's default, so its answers differ from
# run to run. Set `"temperature": true` for each model of your own, and look at one request that the server gets.
#
# Seen:
#   agent cool in GET /agent: temperature 0.1, top_p 0.5
#   agent zero in GET /agent: temperature 0, top_p None
#   model as documented, agent cool: temperature not sent, top_p 0.5, seed 7
#   model as documented, agent zero: temperature not sent, top_p not sent, seed not sent
#   model with the boolean, agent cool: temperature 0.1, top_p 0.5, seed 7
#   model with the boolean, agent zero: temperature 0, top_p not sent, seed not sent
#   debug log, lines that mention it: 0
set -euo pipefail
# shellcheck source=findings/lib.bash
. "$(dirname "$0")/lib.bash"
work=$(mktemp -d)
chmod 755 "$work"
npm_install oc opencode-linux-x64@1.18.34

# A home of its own. The two files keep OpenCode from fetching its plugin package at the start.
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
        asked = self.rfile.read(int(self.headers["content-length"]))
        with open(sys.argv[2], "wb") as last:
            last.write(asked)
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.end_headers()
        for delta, finish in (({"role": "assistant", "content": "hello"}, None), ({}, "stop")):
            chunk = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m",
                     "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}
            self.wfile.write(f"data: {json.dumps(chunk)}\n\n".encode())
        self.wfile.write(b"data: [DONE]\n\n")

http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Model).serve_forever()
PY
model_port=$(free_port)
python3 "$work/model.py" "$model_port" "$work/last" &
pids+=($!)

cat >"$home/opencode.json" <<JSON
{ "model": "local/plain", "small_model": "local/plain", "enabled_providers": ["local"], "autoupdate": false, "share": "disabled",
  "provider": { "local": { "npm": "@ai-sdk/openai-compatible", "name": "Local",
    "options": { "baseURL": "http://127.0.0.1:$model_port/v1", "apiKey": "none" },
    "models": { "plain": { "name": "plain", "limit": { "context": 8192, "output": 1024 } },
                "boolean": { "name": "boolean", "limit": { "context": 8192, "output": 1024 }, "temperature": true } } } },
  "agent": { "cool": { "mode": "primary", "prompt": "Answer.", "temperature": 0.1, "top_p": 0.5, "seed": 7 },
             "zero": { "mode": "primary", "prompt": "Answer.", "temperature": 0 } } }
JSON
for name in MODELS_FETCH AUTOUPDATE LSP_DOWNLOAD DEFAULT_PLUGINS SHARE PROJECT_CONFIG CLAUDE_CODE EXTERNAL_SKILLS EMBEDDED_WEB_UI; do
  export "OPENCODE_DISABLE_$name=1"
done
export OPENCODE_SERVER_USERNAME=finding OPENCODE_SERVER_PASSWORD=finding
port=$(free_port)
cd "$home/project"
HOME=$home XDG_CONFIG_HOME=$home/.config XDG_DATA_HOME=$home/.local/share XDG_CACHE_HOME=$home/.cache \
  XDG_STATE_HOME=$home/.state OPENCODE_CONFIG=$home/opencode.json NO_PROXY='*' \
  "$work/oc/node_modules/opencode-linux-x64/bin/opencode" serve --pure --print-logs --log-level DEBUG \
  --hostname 127.0.0.1 --port "$port" >"$work/oc.log" 2>&1 &
pids+=($!)

cat >"$work/probe.py" <<'PY'
import base64, json, sys, time, urllib.request

base, last, log = sys.argv[1:]
opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
key = "Basic " + base64.b64encode(b"finding:finding").decode()

def call(method, path, body=None, patience=60):
    request = urllib.request.Request(base + path, method=method, data=None if body is None else json.dumps(body).encode(),
                                     headers={"content-type": "application/json", "authorization": key})
    with opener.open(request, timeout=patience) as reply:
        return json.load(reply)

for _ in range(120):
    try:
        call("GET", "/global/health", patience=3)
        break
    except OSError:
        time.sleep(0.5)

agents = {agent["name"]: agent for agent in call("GET", "/agent")}
for name in ("cool", "zero"):
    print(f"agent {name} in GET /agent: temperature {agents[name].get('temperature')}, top_p {agents[name].get('topP')}")
for model, known in (("plain", "as documented"), ("boolean", "with the boolean")):
    for agent in ("cool", "zero"):
        session = call("POST", "/session", {"title": "a title, so that no model is asked for one"})["id"]
        reply = call("POST", f"/session/{session}/message", {"model": {"providerID": "local", "modelID": model}, "agent": agent,
                                                             "parts": [{"type": "text", "text": "Say hello."}]})
        asked = json.load(open(last))
        if reply["info"].get("error") or asked["model"] != model:
            raise SystemExit(f"not answered: {reply['info'].get('error')}")
        print(f"model {known}, agent {agent}:", ", ".join(f"{k} {asked.get(k, 'not sent')}" for k in ("temperature", "top_p", "seed")))
print("debug log, lines that mention it:", open(log).read().lower().count("temperature"))
PY
python3 "$work/probe.py" "http://127.0.0.1:$port" "$work/last" "$work/oc.log" >"$work/seen"
expect 'agent cool in GET /agent: temperature 0.1, top_p 0.5
agent zero in GET /agent: temperature 0, top_p None
model as documented, agent cool: temperature not sent, top_p 0.5, seed 7
model as documented, agent zero: temperature not sent, top_p not sent, seed not sent
model with the boolean, agent cool: temperature 0.1, top_p 0.5, seed 7
model with the boolean, agent zero: temperature 0, top_p not sent, seed not sent
debug log, lines that mention it: 0' <"$work/seen"
