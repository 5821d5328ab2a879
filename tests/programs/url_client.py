"""Fetches URLs with urllib, and checks each body: url_client.py HOST PORT N…"""

import http.client
import os
import sys
import urllib.request

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import books

host, port, lengths = sys.argv[1], int(sys.argv[2]), [int(n) for n in sys.argv[3:]]
if os.environ.get("ODD_GATE"):
    print("ready", flush=True)
    sys.stdin.readline()
context = books.client_context()


opened = []


class Connection(http.client.HTTPSConnection):
    def connect(self):
        super().connect()
        tls = self.sock
        tls.books.identify(tls, "python-client", "client", tls.getsockname(), tls.getpeername())
        opened.append(tls)


class Handler(urllib.request.HTTPSHandler):
    def https_open(self, request):
        return self.do_open(Connection, request, context=context)


opener = urllib.request.build_opener(Handler(), urllib.request.ProxyHandler({}))
for length in lengths:
    with opener.open("https://%s:%d/%d" % (host, port, length)) as response:
        assert response.read() == books.body(length)
for tls in opened:
    tls.books.report()
