"""A proxy in front of the local Hub that answers some requests wrongly: the faults of a network and of a Hub."""

import http.client
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlparse

LOGIN = b"<!doctype html><html><body>Log in to the network</body></html>"
HOP = {"connection", "transfer-encoding", "keep-alive", "date", "server"}


@dataclass
class Fault:
    """What is done to requests of a kind."""

    what: str
    """What comes in place of the Hub's answer: login, json, status, garbage (no HTTP), or reset (before the Hub hears
    of it); lost (after it did); what is wrong with the answer: cut, long or short (its Content-Length), changed (its
    headers); or idle (closed after it).
    """
    method: str = ".*"
    path: str = ".*"
    times: int = 1
    status: int = 503
    headers: dict[str, str | None] = field(default_factory=dict)
    """More of the answer's, or of a changed answer's; None takes one away. {path} is that of the request."""
    body: bytes | None = None
    """None: the error of a busy Hub, or an empty list."""
    """Of json and of status."""
    struck: int = 0
    """How many requests met it."""


@dataclass
class Proxy:
    url: str
    faults: list[Fault] = field(default_factory=list)
    seen: list[str] = field(default_factory=list)
    """Method and path of every request that the Hub heard of."""
    lock: threading.Lock = field(default_factory=threading.Lock)

    def fault(self, method: str, path: str) -> Fault | None:
        with self.lock:
            for each in self.faults:
                if each.times and re.fullmatch(each.method, method) and re.search(each.path, path):
                    each.times, each.struck = each.times - 1, each.struck + 1
                    return each
        return None

    def count(self, method: str, path: str) -> int:
        return sum(each.startswith(f"{method} ") and path in each for each in self.seen)


def _handler(hub: str, proxy: Proxy) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def handle_all(self) -> None:
            body = self._body()
            fault = proxy.fault(self.command, self.path)
            what = fault.what if fault else ""
            if what in ("reset", "garbage"):
                self.wfile.write(b"SSH-2.0-server\r\n" if what == "garbage" else b"")
                self._drop()
                return
            if fault and what in ("login", "json", "status"):
                said = b'{"error": "busy"}' if what == "status" else b"[]"
                said = said if fault.body is None else fault.body
                own = {"login": (200, LOGIN, "text/html"), "json": (200, said, "application/json")}
                status, data, kind = own.get(what, (fault.status, said, "application/json"))
                self._answer(status, data, {"Content-Type": kind, **fault.headers})
                return
            proxy.seen.append(f"{self.command} {self.path}")
            status, headers, data = self._forwarded(body)
            if what == "lost":
                self._drop()
                return
            if fault and what == "changed":
                lower = {name.lower() for name in fault.headers}
                headers = {name: value for name, value in headers.items() if name.lower() not in lower} | fault.headers
            if what in ("long", "short"):
                headers = {name: value for name, value in headers.items() if name.lower() != "content-length"}
                headers["Content-Length"] = str(max(0, len(data) + (10 if what == "long" else -10)))
            self._answer(status, data[: len(data) // 2] if what == "cut" else data, headers)
            if what in ("idle", "cut", "long", "short"):
                self._drop()

        do_GET = do_POST = do_PUT = do_HEAD = do_DELETE = handle_all

        def _body(self) -> bytes:
            if "chunked" not in self.headers.get("Transfer-Encoding", ""):
                return self.rfile.read(int(self.headers.get("Content-Length", 0)))
            parts = []
            while size := int(self.rfile.readline(), 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)

        def _forwarded(self, body: bytes) -> tuple[int, dict[str, str], bytes]:
            to = http.client.HTTPConnection(urlparse(hub).netloc)
            headers = {name: value for name, value in self.headers.items() if name.lower() not in HOP}
            to.request(self.command, self.path, body, headers)
            got = to.getresponse()
            data = got.read()
            to.close()
            return got.status, {name: value for name, value in got.getheaders() if name.lower() not in HOP}, data

        def _answer(self, status: int, data: bytes, headers: dict[str, str | None]) -> None:
            self.send_response(status)
            for name, value in headers.items():
                if value is not None:
                    self.send_header(name, value.replace("{path}", self.path))
            if not any(name.lower() == "content-length" for name in headers):
                self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(data)
                self.wfile.flush()

        def _drop(self) -> None:
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)

        def log_message(self, *_: object) -> None:
            pass

    return Handler


@contextmanager
def faulty(hub: str) -> Iterator[Proxy]:
    """Serve what a Hub serves, with faults that can be added."""
    proxy = Proxy("")
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(hub, proxy))
    server.daemon_threads = True
    setattr(server, "handle_error", lambda *_: None)  # noqa: B010  # a client that was killed has hung up
    proxy.url = f"http://127.0.0.1:{server.server_address[1]}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield proxy
    finally:
        server.shutdown()
        server.server_close()
