"""Answers HTTP requests over TLS, by the library named first: server.py HOW HOST PORT DIR."""
import asyncio
import ssl
import sys

how, host, port, dir = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4]
cert, key = dir + "/cert.pem", dir + "/key.pem"
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"


def context():
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.load_cert_chain(cert, key)
    return made


def http_server():
    from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Length", "5")
            self.end_headers()
            self.wfile.write(b"hello")

    server = ThreadingHTTPServer((host, port), Handler)
    server.socket = context().wrap_socket(server.socket, server_side=True)
    server.serve_forever()


def asyncio_():
    async def talk(reader, writer):
        try:
            while True:
                await reader.readuntil(b"\r\n\r\n")
                writer.write(ANSWER)
        except asyncio.IncompleteReadError:
            writer.close()

    async def run():
        server = await asyncio.start_server(talk, host, port, ssl=context())
        await server.serve_forever()
    asyncio.run(run())


def aiohttp():
    from aiohttp import web

    async def hello(request):
        return web.Response(text="hello")
    app = web.Application()
    app.router.add_get("/{path}", hello)
    web.run_app(app, host=host, port=port, ssl_context=context())


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": message["type"] + ".complete"})
            if message["type"] == "lifespan.shutdown":
                return
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"5")]})
    await send({"type": "http.response.body", "body": b"hello"})


def uvicorn():
    import uvicorn
    uvicorn.run(app, host=host, port=port, ssl_certfile=cert, ssl_keyfile=key)


def hypercorn():
    from hypercorn.asyncio import serve
    from hypercorn.config import Config
    config = Config()
    config.bind, config.certfile, config.keyfile = [f"{host}:{port}"], cert, key
    asyncio.run(serve(app, config))


def gunicorn():
    from gunicorn.app.base import BaseApplication

    def hello(environ, start):
        start("200 OK", [("Content-Length", "5")])
        return [b"hello"]

    class Application(BaseApplication):
        def load_config(self):
            for name, value in {"bind": f"{host}:{port}", "certfile": cert, "keyfile": key, "workers": 2,
                                "worker_class": "gthread", "threads": 2}.items():
                self.cfg.set(name, value)

        def load(self):
            return hello
    Application().run()


def tornado():
    import tornado.httpserver
    import tornado.web

    class Hello(tornado.web.RequestHandler):
        def get(self):
            self.write("hello")

    async def run():
        server = tornado.httpserver.HTTPServer(tornado.web.Application([("/.*", Hello)]), ssl_options=context())
        server.listen(port, host)
        await asyncio.Event().wait()
    asyncio.run(run())


def twisted():
    from twisted.internet import protocol, reactor, ssl as tls

    class Echo(protocol.Protocol):
        def dataReceived(self, data):
            self.transport.write(ANSWER)

    factory = protocol.Factory()
    factory.protocol = Echo
    reactor.listenSSL(port, factory, tls.DefaultOpenSSLContextFactory(key, cert), interface=host)
    reactor.run()


def cheroot():
    from cheroot.ssl.builtin import BuiltinSSLAdapter
    from cheroot.wsgi import Server

    def hello(environ, start):
        start("200 OK", [("Content-Length", "5")])
        return [b"hello"]
    server = Server((host, port), hello)
    server.ssl_adapter = BuiltinSSLAdapter(cert, key)
    server.start()


def gevent():
    from gevent.pywsgi import WSGIServer

    def hello(environ, start):
        start("200 OK", [("Content-Length", "5")])
        return [b"hello"]
    WSGIServer((host, port), hello, certfile=cert, keyfile=key).serve_forever()


def eventlet():
    import eventlet
    import eventlet.wsgi

    def hello(environ, start):
        start("200 OK", [("Content-Length", "5")])
        return [b"hello"]
    eventlet.wsgi.server(eventlet.wrap_ssl(eventlet.listen((host, port)), certfile=cert, keyfile=key, server_side=True), hello)


def trio():
    import trio

    async def talk(stream):
        try:
            while await stream.receive_some():
                await stream.send_all(ANSWER)
        except trio.BrokenResourceError:
            pass
    trio.run(lambda: trio.serve_ssl_over_tcp(talk, port, context(), host=host))


def grpcio():
    from concurrent import futures
    import grpc
    server = grpc.server(futures.ThreadPoolExecutor(2))
    server.add_secure_port(f"{host}:{port}", grpc.ssl_server_credentials([(open(key, "rb").read(), open(cert, "rb").read())]))
    server.start()
    server.wait_for_termination()


{"asyncio": asyncio_}.get(how, globals().get(how))()
