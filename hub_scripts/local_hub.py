"""A Hugging Face Hub on loopback, for tests and demos: models, datasets, LFS, revisions, pull requests.

    python hub_scripts/local_hub.py --root DIR [--port P] [--user NAME:TOKEN]... [--org ORG:USER,USER]...

Prints `Hub at http://127.0.0.1:PORT` and serves until SIGTERM or SIGINT. Everything is kept under the root
(see `hubserver.store`), but for users and tokens: they live as long as the process. Clients set `HF_ENDPOINT`
to that address and `HF_HUB_DISABLE_XET=1`, nothing else.
"""

import argparse
import logging
import signal
import socket
import sys
from pathlib import Path

import uvicorn

sys.path.insert(0, str(Path(__file__).parents[1]))

from hub_scripts.hubserver.app import build
from hub_scripts.hubserver.records import NAME
from hub_scripts.hubserver.store import Store


def pair(text: str) -> tuple[str, str]:
    name, _, value = text.partition(":")
    if not NAME.fullmatch(name) or not value:
        raise argparse.ArgumentTypeError("NAME:VALUE was expected")  # never the text: it may hold a token
    return name, value


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", type=Path, required=True, help="folder that keeps everything")
    parser.add_argument("--port", type=int, default=0, help="0, the default, picks a free one")
    text = "repeatable; demo:hf_local_demo if none is given"
    parser.add_argument("--user", type=pair, action="append", metavar="NAME:TOKEN", help=text)
    parser.add_argument("--org", type=pair, action="append", default=[], metavar="ORG:USER,USER")
    args = parser.parse_args()
    users = dict(args.user or [("demo", "hf_local_demo")])
    app = build(Store(args.root), users, {name: members.split(",") for name, members in args.org})
    for stop in (signal.SIGTERM, signal.SIGINT):
        signal.signal(stop, lambda *_: sys.exit(0))
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(message)s")
    try:
        listener = socket.create_server(("127.0.0.1", args.port))
    except OSError as error:
        sys.exit(f"Error: port {args.port} cannot be had: {error}")
    with listener:
        print(f"Hub at http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
        # connections that lie idle are closed soon, as the real Hub closes them later: clients must cope
        config = uvicorn.Config(app, log_config=None, timeout_graceful_shutdown=3, timeout_keep_alive=1)
        uvicorn.Server(config).run([listener])


if __name__ == "__main__":
    main()
