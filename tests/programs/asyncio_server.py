"""An asyncio TLS server: reads a line `GET /N …` and headers, answers N bytes."""

import asyncio
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import books


async def serve(reader, writer):
    tls = writer.get_extra_info("ssl_object")
    tls.books.identify(tls, "asyncio-server", "server",
                       writer.get_extra_info("sockname"), writer.get_extra_info("peername"))
    try:
        while request := await reader.readline():
            while (await reader.readline()).strip():
                pass
            data = books.body(int(request.split()[1].strip(b"/") or 5))
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(data))
            writer.write(data)
            await writer.drain()
        writer.close()
        await writer.wait_closed()
    except OSError:
        pass
    tls.books.report()


async def main():
    server = await asyncio.start_server(serve, sys.argv[1], 0, ssl=books.server_context())
    print("port %d" % server.sockets[0].getsockname()[1], flush=True)
    async with server:
        await server.serve_forever()


asyncio.run(main())
