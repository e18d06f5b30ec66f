"""A stand-in for DynamoDB that answers at once: it keeps items, and knows no conditions.

Usage: stub.py [CERTIFICATE] prints its port; with a certificate (PEM, with its
key) it speaks TLS.
"""

import json
import ssl
import sys
from collections import defaultdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

tables = defaultdict(list)  # the items of each, newest first
encoded = {}  # of each table, its list as DynamoDB answers it


def answer_to(operation, request):
    """Return what DynamoDB answers to PutItem, Scan, or Query, of an index or by link_id."""
    table = request["TableName"]
    if operation == "PutItem":
        tables[table].insert(0, request["Item"])
        encoded.pop(table, None)
        return b"{}"
    if operation == "Query" and "IndexName" not in request:
        (link_id,) = request["ExpressionAttributeValues"].values()
        return listed([item for item in tables[table] if item["link_id"] == link_id])
    if table not in encoded:
        items = tables[table]
        if "ProjectionExpression" in request:
            asked = request["ProjectionExpression"].split(", ")
            names = {request["ExpressionAttributeNames"][name] for name in asked}
            items = [{name: item[name] for name in item if name in names} for item in items]
        encoded[table] = listed(items)
    return encoded[table]


def listed(items):
    return json.dumps({"Count": len(items), "Items": items, "ScannedCount": len(items)}).encode()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # keeps the connection
    wbufsize = -1  # head and body of an answer go out as one
    disable_nagle_algorithm = True

    def do_POST(self):
        operation = self.headers["X-Amz-Target"].split(".")[1]
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        body = answer_to(operation, request)
        self.send_response(200)
        self.send_header("Content-Type", "application/x-amz-json-1.0")
        self.send_header("Content-Length", len(body))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def main(certificate=None):
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        if certificate:
            tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            tls.load_cert_chain(certificate)
            server.socket = tls.wrap_socket(server.socket, server_side=True)
        print(server.server_port, flush=True)
        server.serve_forever()


if __name__ == "__main__":
    main(*sys.argv[1:])
