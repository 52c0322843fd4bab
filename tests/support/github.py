"""GitHub as `hf extensions` asks for it: a proxy that answers for its hosts itself, by a certificate of its own.

The real client is redirected by its environment alone: HTTPS_PROXY names the proxy, SSL_CERT_FILE the certificate.
"""

import re
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

HOSTS = ("github.com", "raw.githubusercontent.com")


@dataclass
class GitHub:
    """What runs: `env` is for the client's process, `seen` has every request."""

    env: dict[str, str]
    seen: list[str] = field(default_factory=list)


def git(folder: Path, *words: str) -> bytes:
    """What git answers in a folder."""
    own = ("-c", "user.name=them", "-c", "user.email=them@example.org", "-c", "core.hooksPath=/dev/null")
    return subprocess.run(["git", *own, *words], cwd=folder, check=True, capture_output=True).stdout


def commit(folder: Path) -> str:
    """Commit all that is in a folder; return the commit."""
    git(folder, "init", "-q")
    git(folder, "add", "-A")
    git(folder, "commit", "-q", "-m", "Content")
    return git(folder, "rev-parse", "HEAD").decode().strip()


def answer(repos: dict[str, Path], url: str) -> tuple[int, bytes]:
    """What the hosts say of public repos: a page, a file at HEAD, the refs that a clone begins with."""
    found = re.fullmatch(r"(github\.com|raw\.githubusercontent\.com)/([\w-]+/[\w-]+)(.*)", url)
    if not found or found[2].removesuffix(".git") not in repos:
        return 404, b"Not Found"
    host, repo, rest = found.groups()
    folder = repos[repo]
    with suppress(subprocess.CalledProcessError):
        if host == "github.com" and not rest:
            return 200, b"<html></html>"
        if host == "github.com" and rest == ".git/info/refs?service=git-upload-pack":
            advertised = git(folder, "upload-pack", "--stateless-rpc", "--advertise-refs", ".")
            return 200, b"001e# service=git-upload-pack\n0000" + advertised
        if host != "github.com" and rest.startswith("/HEAD/"):
            return 200, git(folder, "show", f"HEAD:{rest.removeprefix('/HEAD/')}")
    return 404, b"Not Found"


def _handler(repos: dict[str, Path], github: GitHub, context: ssl.SSLContext) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        host = ""

        def do_CONNECT(self) -> None:
            self.host = self.path.split(":")[0]
            self.send_response(200)
            self.end_headers()
            self.connection = context.wrap_socket(self.connection, server_side=True)
            self.rfile = self.connection.makefile("rb", -1)
            self.wfile = self.connection.makefile("wb", 0)
            self.close_connection = False

        def do_GET(self) -> None:
            github.seen.append(f"{self.command} {self.host}{self.path}")
            status, said = answer(repos, self.host + self.path)
            self.send_response(status)
            self.send_header("Content-Length", str(len(said)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(said)

        do_HEAD = do_GET

        def log_message(self, format: str, *args: object) -> None:
            pass

    return Handler


@contextmanager
def serve_github(repos: dict[str, Path], folder: Path) -> Iterator[GitHub]:
    """Answer for public repos, `OWNER/NAME` → a folder that `commit` made a repo of, until the end of the `with`."""
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    names = ",".join(f"DNS:{host}" for host in HOSTS)
    words = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=github", "-addext"]
    made = ["openssl", *words, f"subjectAltName={names}", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(made, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    github = GitHub({})
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(repos, github, context))
    github.env = {"HTTPS_PROXY": f"http://127.0.0.1:{server.server_port}", "SSL_CERT_FILE": str(certificate)}
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield github
    finally:
        server.shutdown()
        server.server_close()
