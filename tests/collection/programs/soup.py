"""Gets URLs one after the other over one connection, with libsoup and GLib's TLS."""
import sys

import gi
gi.require_version("Soup", "3.0")
from gi.repository import Soup  # noqa: E402

session = Soup.Session()
for url in sys.argv[1:]:
    message = Soup.Message.new("GET", url)
    message.connect("accept-certificate", lambda *_: True)
    session.send_and_read(message, None)
