"""A proxy on loopback between the handler and the engine's DynamoDB that fails on demand.

A request says how by a header, X-Fault, with one of WIRE.
"""

import contextlib
import http.client
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from zlib import crc32

# What DynamoDB answers for a moment when it does nothing.
REFUSED = {
    "throttled": (400, "ThrottlingException"),
    "internal error": (500, "InternalServerError"),
    "unavailable": (503, "ServiceUnavailable"),
}
# With these a write is done, and the client does not know.
LOST = ("answer lost", "half an answer", "answer cut")
WIRE = (*REFUSED, "dropped on the way", *LOST, "answer in pieces")


class Proxy(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    engine = None  # "127.0.0.1:port"

    def setup(self):
        super().setup()
        self.onward = http.client.HTTPConnection(self.engine)

    def finish(self):
        self.onward.close()
        super().finish()

    def do_POST(self):
        fault, body = self.headers["X-Fault"], self.rfile.read(int(self.headers["Content-Length"]))
        if fault in REFUSED:
            status, code = REFUSED[fault]
            return self.answer(status, b'{"__type": "com.amazonaws.dynamodb.v20120810#%s"}' % code.encode())
        if fault == "dropped on the way":
            self.close_connection = True
            return
        self.onward.request("POST", self.path, body, dict(self.headers))
        response = self.onward.getresponse()
        self.answer(response.status, response.read(), fault)

    def answer(self, status, body, fault=None):
        if fault == "answer lost":
            self.close_connection = True
            return
        # The whole body has another sum, as on AWS; the SDK compares.
        sent = body[: len(body) // 2] if fault in LOST else body
        self.send_response(status)
        self.send_header("Content-Type", "application/x-amz-json-1.0")
        self.send_header("Content-Length", str(len(sent if fault == "answer cut" else body)))
        self.send_header("x-amz-crc32", str(crc32(body)))
        self.end_headers()
        self.close_connection = fault == "half an answer"
        for start in range(0, len(sent), 64 if fault == "answer in pieces" else len(sent)):
            self.wfile.write(sent[start:][: 64 if fault == "answer in pieces" else None])

    def log_message(self, *_):
        pass


@contextlib.contextmanager
def proxy(endpoint):
    """Give the URL of a proxy to this URL of the engine, while the block runs."""
    handler = type("Faulty", (Proxy,), {"engine": endpoint.removeprefix("http://")})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
