"""A repository's page: its card as HTML that loads nothing and runs nothing.

Of the HTML in a card only `<details>` and `<summary>` are kept; everything else is shown as text. Pictures of the repo
are put into the page, so that a saved page is whole; others are shown by their description.
"""

import base64
import html
import mimetypes
import re
from collections.abc import Callable, Mapping
from typing import Any

from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.token import Token
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from .access import address, open_files
from .cards import card_of
from .errors import BadRequest, EntryMissing

FRONT = re.compile(r"\s*---[\r\n]+[\S\s]*?[\r\n]+---(?:\r?\n|$)")
KEPT = re.compile(r"(</?(?:details|summary)>)")
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
STYLE = """
body { font: 16px/1.6 sans-serif; color: #1f2328; max-width: 56rem; margin: 2rem auto; padding: 0 1rem }
h1, h2 { border-bottom: 1px solid #d1d9e0; padding-bottom: .3rem }
table { border-collapse: collapse; display: block; overflow-x: auto; margin: 1rem 0 }
th, td { border: 1px solid #d1d9e0; padding: .3rem .8rem; text-align: left; vertical-align: top }
tr:nth-child(even), pre, code { background: #f6f8fa }
pre { padding: 1rem; overflow-x: auto } code { font-size: 85% }
blockquote { border-left: .25rem solid #d1d9e0; margin: 1rem 0; padding: 0 1rem }
summary { cursor: pointer; font-weight: bold } img { max-width: 100% }
.tag { border: 1px solid #d1d9e0; border-radius: 1rem; padding: .1rem .6rem; margin: 0 .2rem .2rem 0; font-size: 85%;
display: inline-block }
"""
Picture = Callable[[str], bytes | None]


def repo_page(request: Request) -> Response:
    """The card of a model or dataset, on its main branch."""
    repo = open_files(request)
    commit = repo.at("main")
    if "README.md" not in commit.files:
        raise EntryMissing("README.md", commit.oid)

    def picture(path: str) -> bytes | None:
        entry = commit.files.get(path)
        return entry and repo.blob(entry.sha256).read_bytes()

    text = repo.blob(commit.files["README.md"].sha256).read_text(errors="replace")
    return HTMLResponse(page(repo.id, text, picture, f"{address(request, repo)}/resolve/main/"))


def page(name: str, card: str, picture: Picture = lambda path: None, files: str = "") -> str:
    """Return a card as an HTML page; `picture` gives the bytes of a file of the repo, `files` is where they lie."""
    try:
        tags = "".join(f'<span class="tag">{html.escape(tag)}</span>' for tag in _tags(card_of(card)))
    except BadRequest:
        tags = ""
    parts = (
        "<!doctype html>",
        f'<html lang="en"><head><meta charset="utf-8"><meta http-equiv="Content-Security-Policy" content="{POLICY}">',
        f"<title>{html.escape(name)}</title><style>{STYLE}</style></head><body>",
        f"<p><code>{html.escape(name)}</code></p>",
        f"<p>{tags}</p>",
        _body(FRONT.sub("", card, count=1), picture, files),
        "</body></html>",
    )
    return "\n".join(parts)


def _tags(card: Mapping[str, Any]) -> list[str]:
    """What the Hub shows above a card."""
    keys = ("pipeline_tag", "library_name", "license", "base_model", "datasets", "tags")
    many = {key: value if isinstance(value := card.get(key), list) else [value] for key in keys}
    named = ("license", "base_model", "datasets")
    return [f"{key}: {each}" if key in named else str(each) for key in keys for each in many[key] if each]


def _body(markdown: str, picture: Picture, files: str) -> str:
    parser = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
    tokens = parser.parse(markdown)
    for token in tokens:
        for each in token.children or ():
            _link(each, picture, files)
    renderer = RendererHTML()
    renderer.rules |= {"html_block": _raw, "html_inline": _raw, "image": _image}
    return renderer.render(tokens, parser.options, {})


def _raw(tokens: list[Token], place: int, *_: Any) -> str:
    return "".join(part if KEPT.fullmatch(part) else html.escape(part) for part in KEPT.split(tokens[place].content))


def _link(token: Token, picture: Picture, files: str) -> None:
    """A link to a file of the repo leads there; a picture of it is put in."""
    where = str(token.attrGet("href" if token.type == "link_open" else "src") or "")
    own = bool(where) and not re.match(r"[\w+.-]+:|/|#", where)
    if token.type == "link_open" and own:
        token.attrSet("href", files + where)
    if token.type == "image":
        data = picture(where.removeprefix("./")) if own else None
        kind = mimetypes.guess_type(where)[0] or ""
        shown = data is not None and kind in ("image/png", "image/jpeg", "image/gif")
        token.attrSet("src", f"data:{kind};base64,{base64.b64encode(data or b'').decode()}" if shown else "")


def _image(tokens: list[Token], place: int, *_: Any) -> str:
    token = tokens[place]
    source, text = html.escape(str(token.attrGet("src"))), html.escape(token.content)
    return f'<img src="{source}" alt="{text}">' if source else f"<em>[{text}]</em>"
