"""Gets URLs one after the other over one connection, by the library named first."""
import asyncio
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


globals()[how]()
