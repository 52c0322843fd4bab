"""A repo's page: its card as HTML that shows what a card says, and neither runs nor loads anything."""

import re
import urllib.error
import urllib.request
from html.parser import HTMLParser

import pytest
from huggingface_hub import HfApi
from support.hub_clients import commit

from hub_scripts.hubserver.pages import page

CARD = """---
license: mit
base_model: demo/base
tags: [a<b]
---
# Title

| model | accuracy |
|---|---|
| **port** | 96.8 % |

![bars](bars.png) and [the report](hf_bico.json), [elsewhere](https://example.org/x)

<details><summary>More</summary>

`code` & text

</details>
"""
EVIL = (
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "text <b onclick=alert(1)>bold</b>",
    "<details open ontoggle=alert(1)>x</details>",
    "<iframe src=//evil.org></iframe>",
    "<style>body { display: none }</style>",
    "</body><script>alert(1)</script>",
    "[click](javascript:alert(1))",
    "![x](https://evil.org/x.png)",
    "![x](data:image/svg+xml;base64,PHN2Zy8+)",
    '![x](x.png "\\" onerror=alert(1)")',
    "---\ntags: ['<script>alert(1)</script>']\nlicense: '\"><script>'\n---\n",
    "```\n</code></pre><script>alert(1)</script>\n```",
)
OURS = {"html", "head", "meta", "title", "style", "body", "span"}
MARKDOWN = {
    "h1",
    "h2",
    "p",
    "table",
    "thead",
    "tbody",
    "tr",
    "th",
    "td",
    "strong",
    "em",
    "code",
    "pre",
    "a",
    "img",
    "hr",
}
ALLOWED = {"src", "alt", "href", "title", "class", "lang", "charset", "http-equiv", "content"}


class Seen(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs) -> None:
        self.tags.append((tag, dict(attrs)))


def test_a_card_is_shown_as_a_page():
    made = page("demo/x", CARD, {"bars.png": b"\x89PNG"}.get, "http://hub/demo/x/resolve/main/")
    tags = Seen(made).tags
    assert "<h1>Title</h1>" in made and "<td><strong>port</strong></td>" in made
    assert "<details><summary>More</summary>" in made and "</details>" in made
    assert "<code>code</code> &amp; text" in made
    assert [attrs["src"] for tag, attrs in tags if tag == "img"] == ["data:image/png;base64,iVBORw=="]
    links = [attrs["href"] for tag, attrs in tags if tag == "a"]
    assert links == ["http://hub/demo/x/resolve/main/hf_bico.json", "https://example.org/x"]
    assert re.findall(r'class="tag">([^<]*)<', made) == ["license: mit", "base_model: demo/base", "a&lt;b"]
    assert "base_model: demo/base\ntags" not in made, "the metadata is no text"


@pytest.mark.parametrize("text", EVIL)
def test_what_a_card_brings_neither_runs_nor_loads(text):
    made = page("demo/<x>", text, {"x.png": b"\x89PNG"}.get)
    tags = Seen(made).tags
    assert {tag for tag, _ in tags} <= OURS | MARKDOWN | {"details", "summary"}
    assert {name for _, attrs in tags for name in attrs} <= ALLOWED
    assert not [attrs for tag, attrs in tags if tag == "a" and "javascript" in attrs["href"]]
    assert all(attrs["src"].startswith("data:image/png;") for tag, attrs in tags if tag == "img")
    assert [tag for tag, _ in tags].count("style") == 1
    policy = next(attrs["content"] for tag, attrs in tags if tag == "meta" and "http-equiv" in attrs)
    assert policy.startswith("default-src 'none'")


def fetched(address: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(address) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, ""


def test_the_hub_serves_the_page_where_a_browser_looks_for_it(api: HfApi, repo: str):
    commit(api, repo, {"README.md": CARD.encode(), "bars.png": b"\x89PNG"})
    status, made = fetched(f"{api.endpoint}/{repo}")
    assert status == 200 and "<h1>Title</h1>" in made and "data:image/png" in made
    assert f"{api.endpoint}/{repo}/resolve/main/hf_bico.json" in made
    api.update_repo_settings(repo, private=True)
    assert fetched(f"{api.endpoint}/{repo}")[0] in (401, 404)
    assert fetched(f"{api.endpoint}/demo/none")[0] in (401, 404)
    assert fetched(f"{api.endpoint}/api/none")[0] == 404
