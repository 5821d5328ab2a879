"""A threaded HTTPS server: GET /N answers N bytes, POST answers what was posted."""

import http.server
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import books


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self, data):
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def do_GET(self):
        self.answer(books.body(int(self.path.strip("/") or 5)))

    def do_POST(self):
        self.answer(self.rfile.read(int(self.headers["Content-Length"])))

    def setup(self):
        super().setup()
        tls = self.connection
        tls.books.identify(tls, "python-server", "server", tls.getsockname(), self.client_address)

    def finish(self):
        super().finish()
        self.connection.books.report()

    def log_message(self, *args):
        pass


server = http.server.ThreadingHTTPServer((sys.argv[1], 0), Handler)
server.socket = books.server_context().wrap_socket(server.socket, server_side=True)
print("port %d" % server.server_address[1], flush=True)
server.serve_forever()
