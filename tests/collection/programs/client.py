"""Gets URLs one after the other over one connection, by the library named first."""
import asyncio
import os
import ssl
import sys
from urllib.parse import urlsplit

how, urls = sys.argv[1], sys.argv[2:]
context = ssl.create_default_context()
context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
parts = urlsplit(urls[0])
sslopt = {"verify": False}


def http_client():
    import http.client
    conn = http.client.HTTPSConnection(parts.hostname, parts.port, context=context)
    for url in urls:
        conn.request("GET", urlsplit(url).path)
        conn.getresponse().read()


def urllib():
    import urllib.request
    for url in urls:
        urllib.request.urlopen(url, context=context).read()


def requests():
    import requests
    session = requests.Session()
    for url in urls:
        session.get(url, verify=False)


def niquests():
    import niquests
    session = niquests.Session(disable_http3=True, disable_http2=True)
    for url in urls:
        session.get(url, verify=False)


def urllib3():
    import urllib3
    pool = urllib3.PoolManager(cert_reqs="CERT_NONE", assert_hostname=False)
    for url in urls:
        pool.request("GET", url)


def httpx():
    import httpx
    with httpx.Client(verify=False) as client:
        for url in urls:
            client.get(url)


def httpx_async():
    import httpx

    async def run():
        async with httpx.AsyncClient(verify=False) as client:
            for url in urls:
                await client.get(url)
    asyncio.run(run())


def aiohttp():
    import aiohttp

    async def run():
        async with aiohttp.ClientSession() as session:
            for url in urls:
                async with session.get(url, ssl=False) as answer:
                    await answer.read()
    asyncio.run(run())


def asyncio_streams():
    async def run():
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port, ssl=context)
        for url in urls:
            writer.write(f"GET {urlsplit(url).path} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().split(b"content-length:")[1].split()[0])
            await reader.readexactly(length)
        writer.close()
    asyncio.run(run())


def pycurl():
    import pycurl
    curl = pycurl.Curl()
    curl.setopt(curl.SSL_VERIFYPEER, 0)
    curl.setopt(curl.SSL_VERIFYHOST, 0)
    curl.setopt(curl.WRITEFUNCTION, lambda part: None)
    for url in urls:
        curl.setopt(curl.URL, url)
        curl.perform()


def curl_cffi():
    from curl_cffi import requests
    session = requests.Session(verify=False, impersonate="chrome")
    for url in urls:
        session.get(url)


def tornado():
    from tornado.httpclient import AsyncHTTPClient

    async def run():
        for url in urls:
            await AsyncHTTPClient().fetch(url, validate_cert=False)
    asyncio.run(run())


def twisted():
    from twisted.internet import protocol, reactor, ssl as tls

    class Get(protocol.Protocol):
        left, size = list(urls), 0

        def connectionMade(self):
            self.ask()

        def ask(self):
            self.size, self.head = 0, b""
            path = urlsplit(self.left.pop(0)).path
            self.transport.write(f"GET {path} HTTP/1.1\r\nHost: a\r\n\r\n".encode())

        def dataReceived(self, data):
            self.head += data
            head, _, body = self.head.partition(b"\r\n\r\n")
            if len(body) >= int(head.lower().split(b"content-length:")[1].split()[0]):
                self.ask() if self.left else self.transport.loseConnection()

        def connectionLost(self, reason):
            reactor.stop()

    factory = protocol.ClientFactory()
    factory.protocol = Get
    reactor.connectSSL(parts.hostname, parts.port, factory, tls.CertificateOptions(verify=False))
    reactor.run()


def primp():
    import primp
    client = primp.Client(verify=False)
    for url in urls:
        client.get(url).content


def impit():
    import impit
    client = impit.Client(verify=False)
    for url in urls:
        client.get(url).content


def tls_client():
    import tls_client
    session = tls_client.Session(client_identifier="chrome_120")
    for url in urls:
        session.get(url, insecure_skip_verify=True)


def obstore():
    import obstore
    from obstore.store import HTTPStore
    store = HTTPStore.from_url(f"https://{parts.netloc}", client_options={"allow_invalid_certificates": True})
    for url in urls:
        obstore.get(store, urlsplit(url).path.strip("/")).bytes()


def pyarrow():
    from pyarrow import fs
    store = fs.S3FileSystem(access_key="a", secret_key="b", endpoint_override=parts.netloc, scheme="https", region="r",
                            tls_ca_file_path=os.environ["SSL_CERT_FILE"])
    for url in urls:
        store.get_file_info("bucket" + urlsplit(url).path)


def green():
    """With a context that is made once the modules have been patched."""
    global context
    context = ssl._create_unverified_context()
    http_client()


def gevent():
    from gevent import monkey, spawn
    monkey.patch_all()
    spawn(green).join()


def eventlet():
    import eventlet
    eventlet.monkey_patch()
    eventlet.spawn(green).wait()


def trio():
    import trio

    async def run():
        stream = await trio.open_ssl_over_tcp_stream(parts.hostname, parts.port, ssl_context=context)
        for url in urls:
            await stream.send_all(f"GET {urlsplit(url).path} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
            got = b""
            while b"\r\n\r\n" not in got:
                got += await stream.receive_some()
            head, _, body = got.partition(b"\r\n\r\n")
            while len(body) < int(head.lower().split(b"content-length:")[1].split()[0]):
                body += await stream.receive_some()
    trio.run(run)


globals()[how]()
