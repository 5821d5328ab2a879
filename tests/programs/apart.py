"""The same with asyncio, without proxies: apart.py COUNT ROUNDS [starttls] [1.2]

`starttls`: a line in clear goes each way before TLS begins.
"""

import asyncio
import os
import ssl
import sys

COUNT, ROUNDS = int(sys.argv[1]), int(sys.argv[2])
STARTTLS, OLD = "starttls" in sys.argv, "1.2" in sys.argv
SERVER = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
SERVER.load_cert_chain(os.environ["LAB_CERT"], os.environ["LAB_KEY"])
CLIENT = ssl.create_default_context(cafile=os.environ["LAB_CERT"])
if OLD:
    CLIENT.maximum_version = ssl.TLSVersion.TLSv1_2


def ports(writer):
    return "%d %d" % (writer.get_extra_info("sockname")[1], writer.get_extra_info("peername")[1])


async def serve(reader, writer):
    if STARTTLS:
        await reader.readline()
        writer.write(b"go ahead\n")
        await writer.start_tls(SERVER)
    number = 0
    while await reader.readline():
        writer.write(b"server %s %d\n" % (ports(writer).encode(), number))
        number += 1


async def connect(port):
    if not STARTTLS:
        return await asyncio.open_connection("127.0.0.1", port, ssl=CLIENT)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"starttls\n")
    await reader.readline()
    await writer.start_tls(CLIENT, server_hostname="127.0.0.1")
    return reader, writer


async def talk(reader, writer):
    for number in range(ROUNDS):
        writer.write(b"client %s %d\n" % (ports(writer).encode(), number))
        await reader.readline()


async def main():
    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=None if STARTTLS else SERVER)
    port = server.sockets[0].getsockname()[1]
    ends = await asyncio.gather(*(connect(port) for _ in range(COUNT)))
    if os.environ.get("ODD_GATE"):
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
    await asyncio.gather(*(talk(*end) for end in ends))
    os._exit(0)


asyncio.run(main())
