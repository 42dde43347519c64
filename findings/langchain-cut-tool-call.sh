#!/usr/bin/env bash
# LangChain: a streamed tool call that the model server cut off becomes a valid tool call with other arguments.
#
# Software: PyPI langchain-openai 1.7.4, langchain-core 1.8.3 and openai 3.57.0, against a server that speaks OpenAI's
# chat completions over loopback.
#
# The server begins a call of the tool `remove` with the arguments {"path": "/srv/jobs/old"} and stops in the middle of
# the string, after `{"path": "/srv/jobs`, because the limit of tokens is reached: finish_reason "length", then [DONE].
# That is ordinary, valid behaviour of every OpenAI-compatible server.
#
# Expected: LangChain documents `invalid_tool_calls` as the place for tool calls whose arguments do not parse. `{"path":
# "/srv/jobs` is not JSON (RFC 8259), so the call belongs there; and so it is if the very same reply is not streamed.
# Instead: streamed, the missing quote and brace are filled in. The message has one *valid* tool call with the path
# "/srv/jobs" (the parent of what was meant) and no invalid one, and the tool runs with it. The same happens if the
# connection ends without any finish_reason. Nothing is raised; in the second case nothing in the message differs from
# a complete one but an absent entry of response_metadata.
#
# Meaning: whoever runs tools from a streamed LangChain message has to look at finish_reason first, and to refuse both
# "length" and an absent one. A schema does not help: a shortened string is still a string.
#
# Seen:
#   not streamed, length: valid [] invalid ['{"path": "/srv/jobs']
#   streamed, length: valid [{'path': '/srv/jobs'}] invalid [] finish_reason length
#   streamed, length, the tool answers: removed /srv/jobs
#   streamed, connection ends: valid [{'path': '/srv/jobs'}] invalid [] finish_reason None
#   streamed, connection ends, the tool answers: removed /srv/jobs
set -euo pipefail
# shellcheck source=findings/lib.bash
. "$(dirname "$0")/lib.bash"
work=$(mktemp -d)
chmod 755 "$work"
pip_install py langchain-openai==1.7.4 langchain-core==1.8.3 openai==3.57.0

cat >"$work/probe.py" <<'PY'
import http.server, json, threading
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI

CUT = ['{"path": "/srv', '/jobs']

class Server(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        streamed, model = asked.get("stream"), asked["model"]
        common = {"id": "c", "created": 1, "model": model}

        def call(arguments, **more):
            return {"tool_calls": [{"index": 0, "function": {"arguments": arguments, **more.pop("function", {})}, **more}]}

        self.send_response(200)
        self.send_header("connection", "close")
        self.close_connection = True
        if not streamed:
            message = {"role": "assistant", "content": None, "tool_calls": [
                {"id": "t", "type": "function", "function": {"name": "remove", "arguments": "".join(CUT)}}]}
            body = json.dumps({**common, "object": "chat.completion",
                               "choices": [{"index": 0, "finish_reason": "length", "message": message}]}).encode()
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
            return
        self.send_header("content-type", "text/event-stream")
        self.end_headers()

        def chunk(delta, finish=None):
            choice = {"index": 0, "delta": delta, "finish_reason": finish}
            text = json.dumps({**common, "object": "chat.completion.chunk", "choices": [choice]})
            self.wfile.write(f"data: {text}\n\n".encode())

        chunk({"role": "assistant", **call("", id="t", type="function", function={"name": "remove"})})
        for piece in CUT:
            chunk(call(piece))
        if model == "length":
            chunk({}, "length")
            self.wfile.write(b"data: [DONE]\n\n")

server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server)
threading.Thread(target=server.serve_forever, daemon=True).start()

@tool
def remove(path: str) -> str:
    "Removes a folder."
    return "removed " + path

def ask(model, streaming):
    llm = ChatOpenAI(model=model, base_url=f"http://127.0.0.1:{server.server_port}/v1", api_key="none",
                     streaming=streaming, max_retries=0)
    return llm.bind_tools([remove]).invoke("Remove /srv/jobs/old")

plain = ask("length", False)
print("not streamed, length: valid", plain.tool_calls, "invalid", [c["args"] for c in plain.invalid_tool_calls])
for model, name in (("length", "length"), ("ends", "connection ends")):
    reply = ask(model, True)
    print(f"streamed, {name}: valid", [c["args"] for c in reply.tool_calls], "invalid", reply.invalid_tool_calls,
          "finish_reason", reply.response_metadata.get("finish_reason"))
    print(f"streamed, {name}, the tool answers:", *[remove.invoke(c).content for c in reply.tool_calls])
PY

NO_PROXY='*' LANGSMITH_TRACING=false "$work/py/bin/python" "$work/probe.py" | expect "not streamed, length: valid [] invalid ['{\"path\": \"/srv/jobs']
streamed, length: valid [{'path': '/srv/jobs'}] invalid [] finish_reason length
streamed, length, the tool answers: removed /srv/jobs
streamed, connection ends: valid [{'path': '/srv/jobs'}] invalid [] finish_reason None
streamed, connection ends, the tool answers: removed /srv/jobs"
