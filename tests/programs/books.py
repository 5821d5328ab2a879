"""Keeps the books of what a Python program passes to TLS: the oracle of the tests."""

import json
import os
import ssl
import sys
import threading
import zlib

_print_lock = threading.Lock()


class Books:
    """Length and CRC-32 of what was written and read."""

    def start(self):
        self.out = [0, 0]
        self.into = [0, 0]

    @staticmethod
    def _add(entry, data):
        entry[0] += len(data)
        entry[1] = zlib.crc32(data, entry[1])

    def identify(self, tls, name, role, local, remote):
        """Notes who this is, while the connection still knows; addresses as socket gives them."""
        self.facts = {
            "name": name, "pid": os.getpid(), "role": role, "transport": "tcp",
            "local": "%s:%d" % local[:2], "remote": "%s:%d" % remote[:2],
            "version": (tls.version() or "").replace("TLSv", ""),
            "sni": "", "alpn": tls.selected_alpn_protocol() or "", "retries": 0,
        }

    def report(self):
        """One JSON line on stdout."""
        line = json.dumps(dict(
            self.facts,
            out={"len": self.out[0], "crc": self.out[1]},
            **{"in": {"len": self.into[0], "crc": self.into[1]}}))
        with _print_lock:
            sys.stdout.write(line + "\n")
            sys.stdout.flush()


class BookedSocket(ssl.SSLSocket):
    """An SSLSocket that counts; recv and sendall end in these two."""

    @property
    def books(self):
        if "_books" not in self.__dict__:
            self._books = Books()
            self._books.start()
        return self._books

    def read(self, len=1024, buffer=None):
        result = super().read(len, buffer)
        Books._add(self.books.into, result if buffer is None else memoryview(buffer)[:result])
        return result

    def send(self, data, flags=0):
        count = super().send(data, flags)
        Books._add(self.books.out, memoryview(data).cast("B")[:count])
        return count


class BookedObject(ssl.SSLObject):
    """The same for memory BIOs."""

    @property
    def books(self):
        if "_books" not in self.__dict__:
            self._books = Books()
            self._books.start()
        return self._books

    def read(self, len=1024, buffer=None):
        if buffer is None:
            result = super().read(len)
            Books._add(self.books.into, result)
        else:
            result = super().read(len, buffer)
            Books._add(self.books.into, memoryview(buffer)[:result])
        return result

    def write(self, data):
        count = super().write(data)
        Books._add(self.books.out, memoryview(data).cast("B")[:count])
        return count


def server_context(protocols=()):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(os.environ["LAB_CERT"], os.environ["LAB_KEY"])
    if protocols:
        context.set_alpn_protocols(list(protocols))
    context.sslsocket_class = BookedSocket
    context.sslobject_class = BookedObject
    return context


def client_context():
    context = ssl.create_default_context(cafile=os.environ["LAB_CERT"])
    context.sslsocket_class = BookedSocket
    context.sslobject_class = BookedObject
    return context


def body(length):
    """The body that every server of the lab answers with: `length` bytes, no two places alike."""
    return b"".join(b"%015x\n" % at for at in range(0, length + 16, 16))[:length]
