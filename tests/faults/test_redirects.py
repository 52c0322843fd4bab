"""A redirect to another host takes no token there, whatever is asked for."""

import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from support.fault_kinds import fault


@contextmanager
def listening():
    """A server under another host's name, that records the headers of what it is asked; it has nothing."""
    heard = []

    class Handler(BaseHTTPRequestHandler):
        def handle_all(self):
            heard.append((self.command, self.path, dict(self.headers)))
            self.send_error(404)

        do_GET = do_HEAD = do_POST = do_PUT = handle_all

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://localhost:{server.server_address[1]}", heard
    server.shutdown()
    server.server_close()


PLACES = {
    "info": ("GET", "/api/models/demo/little-ft", "port"),
    "config": ("GET", r"/resolve/\w+/config\.json", "port"),
    "head": ("HEAD", r"/resolve/\w+/model\.safetensors", "port"),
    "weights": ("GET", r"/resolve/\w+/model\.safetensors", "port"),
    "data": ("GET", r"/resolve/\w+/train\.jsonl", "port"),
    "whoami": ("GET", "/api/whoami-v2", "port"),
    "create": ("POST", "/api/repos/create", "port"),
    "preupload": ("POST", "/preupload/", "port"),
    "commit": ("POST", "/commit/main", "port"),
    "delta": ("GET", r"/resolve/\w+/(delta|adapter_model)\.safetensors", "load"),
}


@pytest.mark.parametrize("place", PLACES)
def test_no_token_goes_to_another_host(ready, place):
    status = 302 if list(PLACES).index(place) % 2 else 307
    method, path, work = PLACES[place]
    ready.forget(cold=True)
    with listening() as (other, heard):
        ready.proxy.faults[:] = [met := fault("redirected to another host", method, path, 99, other)]
        met.status = status
        ran, repo = ready.do(work)
    ready.outcome(work, ran, repo)
    assert met.struck
    assert heard or method == "HEAD"  # the client reads the size there and does not follow
    for _, _, headers in heard:
        assert not {name.lower() for name in headers} & {"authorization", "cookie"}
        assert ready.hub.token not in str(headers)
