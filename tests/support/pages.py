"""HTML pages, read strictly: every tag closed in its order, every attribute quoted and there once."""

import re
from dataclasses import dataclass, field
from html.parser import HTMLParser

VOID = {"meta", "link", "br", "hr", "img", "input"}
SHAPES = {"rect", "line", "circle", "path"}
"""Parts of pictures that close themselves."""
LOADS = {"src", "srcset", "data", "poster", "action", "formaction", "background", "style", "ping", "manifest"}
"""Attributes by which a page loads something or sends it somewhere."""
ACTIVE = {"script", "iframe", "object", "embed", "form", "img", "link", "base", "video", "audio", "image", "use"}
"""Tags by which it does."""


@dataclass
class Node:
    """An element of a page."""

    tag: str
    attrs: dict[str, str]
    inside: list = field(default_factory=list)

    def __iter__(self):
        yield self
        for each in self.inside:
            if isinstance(each, Node):
                yield from each

    def every(self, tag: str, **attrs: str) -> list["Node"]:
        """Elements of a tag, with these attributes; a class among others is found too."""
        wanted = {name.rstrip("_"): value for name, value in attrs.items()}
        return [
            node
            for node in self
            if node.tag == tag and all(value in node.attrs.get(name, "").split() for name, value in wanted.items())
        ]

    @property
    def text(self) -> str:
        return "".join(each.text if isinstance(each, Node) else each for each in self.inside)


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.root = Node("", {})
        self.open = [self.root]

    def handle_starttag(self, tag, attrs):
        self._add(tag, attrs)
        if tag not in VOID:
            self.open.append(self.open[-1].inside[-1])

    def handle_startendtag(self, tag, attrs):
        assert tag in SHAPES, f"<{tag}/> closes nothing in HTML"
        self._add(tag, attrs)

    def handle_endtag(self, tag):
        assert self.open[-1].tag == tag, f"</{tag}> where <{self.open[-1].tag}> is open, in line {self.getpos()[0]}"
        self.open.pop()

    def handle_data(self, data):
        self.open[-1].inside.append(data)

    def handle_comment(self, data):
        raise AssertionError(f"a comment: {data}")

    def _add(self, tag, attrs):
        names = [name for name, _ in attrs]
        assert len(names) == len(set(names)), f"<{tag}> has an attribute twice: {names}"
        assert all(value is not None for _, value in attrs), f"<{tag}> has an attribute without a value: {attrs}"
        self.open[-1].inside.append(Node(tag, dict(attrs)))


def parsed(text: str) -> Node:
    """Return the root of a page; fail where it is not well-formed."""
    assert text.startswith("<!DOCTYPE html>")
    reader = _Reader()
    reader.feed(text)
    reader.close()
    assert reader.open == [reader.root], f"<{reader.open[-1].tag}> is never closed"
    ids = [node.attrs["id"] for node in reader.root if "id" in node.attrs]
    assert len(ids) == len(set(ids)), "an id is there twice"
    return reader.root


def assert_asks_for_nothing(text: str) -> Node:
    """Fail where a page could load, run or send anything; return its root."""
    root = parsed(text)
    for node in root:
        assert node.tag not in ACTIVE, node
        odd = {name for name in node.attrs if name in LOADS or name.startswith("on") or name.endswith(":href")}
        assert not odd, (node.tag, node.attrs)
        if "href" in node.attrs:
            assert node.tag == "a" and re.match(r"(#[\w-]+|https?://[\w.:/@-]+)$", node.attrs["href"]), node.attrs
    (style,) = root.every("style")
    assert not re.search(r"url\(|@import|expression|</", style.text)
    (policy,) = [node.attrs["content"] for node in root.every("meta") if "http-equiv" in node.attrs]
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    assert "unsafe" not in policy
    return root


def assert_can_be_heard(root: Node) -> None:
    """Fail where a table has no caption or its cells no heads, a picture no words, a name no element."""
    ids = {node.attrs["id"] for node in root if "id" in node.attrs}
    for table in root.every("table"):
        assert len(table.every("caption")) == 1
        assert all(cell.attrs.get("scope") in ("col", "row") for cell in table.every("th"))
    for svg in root.every("svg"):
        told = svg.attrs.get("aria-hidden") == "true" or svg.attrs.get("aria-label") or svg.every("title")
        assert told, svg.attrs
    for node in root:
        for name in ("aria-labelledby", "aria-describedby"):
            assert name not in node.attrs or node.attrs[name] in ids, node.attrs
        if node.attrs.get("href", "").startswith("#"):
            assert node.attrs["href"][1:] in ids, node.attrs
