"""A model that answers with the plan which its goal holds: PLAN=, and base64 of its JSON. Takes a port."""

import base64
import http.server
import json
import re
import sys


class Model(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        asked = self.rfile.read(int(self.headers["content-length"])).decode()
        plan = base64.b64decode(re.search(r"PLAN=([A-Za-z0-9+/=]+)", asked)[1]).decode()
        message = {"role": "assistant", "content": plan}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        answer = json.dumps({"id": "1", "object": "chat.completion", "model": "m", "choices": [choice]}).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_):
        pass


http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Model).serve_forever()
