"""Text from outside is text in a card: it makes no metadata, HTML, links, images, cells or blocks of its own."""

import pytest
import yaml
from huggingface_hub import ModelCard, ModelCardData
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from hf_bico.core.errors import printable
from hf_bico.reports.markdown import code, fenced, inline, spoken

PARSER = MarkdownIt("gfm-like", {"html": True})
ODD = (
    " 12) x",
    "    code",
    "\r>",
    "<script>alert(1)</script>",
    "<!-- hidden",
    "![x](http://evil.org/x.png)",
    "[click](javascript:x)",
    "[a]: http://evil.org",
    "http://evil.org/x?y",
    "www.evil.org",
    "me@evil.org",
    "a | b | c",
    "`code`",
    "``",
    "\\",
    "# title",
    "- item",
    "1. item",
    "> quote",
    "---",
    "===",
    "***bold***",
    "_it_",
    "~~gone~~",
    "&lt;b&gt;",
    "$x$",
    "a\n\n# b",
    "```\nx\n```",
    "---\nlicense: mit\n---",
    "\u202egpj.exe",
    "\x1b[31mred",
    "a\u2066b",
    "\x00",
    "\ud800",
    "dog_and_cat 12.5% (a), b: c; d/e – “f” é 犬",
)
texts = st.one_of(
    st.sampled_from(ODD), st.text(max_size=20), st.text(st.sampled_from("a1 <>[]()`*_|\\&#!~$-+.=:/@w\n"), max_size=20)
)
PLAIN = {"inline", "paragraph_open", "paragraph_close", "text", "text_special", "code_inline"}


def kinds(markdown: str) -> list[str]:
    """The kinds of all tokens, of those within others too."""
    found = []
    for token in PARSER.parse(markdown):
        found += [token.type, *(each.type for each in token.children or ())]
    return found


def shown(markdown: str) -> str:
    """What a reader sees of a paragraph."""
    (line,) = [token for token in PARSER.parse(markdown) if token.type == "inline"]
    return "".join(token.content for token in line.children)


def told(text: str) -> str:
    """A text as one line, what steers a terminal written out."""
    return " ".join(printable(text).split())


@settings(max_examples=300, deadline=None, derandomize=True, database=None)
@given(text=texts, before=st.sampled_from(["", "a ", "**x**, "]))
def test_a_text_is_shown_and_makes_nothing(text, before):
    extra = {"strong_open", "strong_close"} if "*" in before else set()
    for shows in (inline, spoken):
        assert [kind for kind in kinds(f"{before}{shows(text)}") if kind not in PLAIN | extra] == []
    if told(text):
        seen = shown(f"x{inline(text)}").replace("\\|", "|")  # a code span for a table, where that is a line
        assert told(seen) == told("x" + text).replace("\\|", "|")


@settings(max_examples=300, deadline=None, derandomize=True, database=None)
@given(cells=st.lists(texts, min_size=3, max_size=3), how=st.sampled_from([inline, code]))
def test_a_text_is_one_cell_of_a_table(cells, how):
    table = f"| a | b | c |\n|---|---|---|\n| {' | '.join(how(cell) for cell in cells)} |\n"
    found = kinds(table)
    assert (found.count("tr_open"), found.count("th_open"), found.count("td_open")) == (2, 3, 3)
    assert not {"html_inline", "html_block", "link_open", "image"} & set(found)


@settings(max_examples=300, deadline=None, derandomize=True, database=None)
@given(text=texts)
def test_a_text_is_one_code_span_or_fence(text):
    assert [kind for kind in kinds(f"x{code(text)}") if kind not in PLAIN] == []
    assert kinds(f"x {code(text)}").count("code_inline") == 1
    assert kinds(fenced(text, "python")) == ["fence"]


@settings(max_examples=300, deadline=None, derandomize=True, database=None)
@given(text=texts)
def test_a_text_makes_no_metadata(text):
    """Whatever a name is, the header says that, and no more."""
    data = ModelCardData(model_name=f"a{text}", tags=[text], hf_bico_lineage={"source": text})
    card = ModelCard(f"---\n{data.to_yaml()}\n---\n\n# {inline(text)}\n")
    assert set(card.data.to_dict()) == {"model_name", "tags", "hf_bico_lineage"}
    assert card.data.to_dict()["tags"] == yaml.safe_load(data.to_yaml())["tags"]


@pytest.mark.parametrize("name", ["org/vit_b_16-ft", "a_b", "cat", "12.5 %", "x = 3 (y)", "0 × 1 → 2"])
def test_plain_names_stay_as_they_are(name):
    assert inline(name) == name


def test_a_command_in_a_sentence_is_code():
    assert spoken("try `hf-bico check a*b` or <b>") == "try `hf-bico check a*b` or \\<b>"
    assert kinds(spoken("one ` alone")).count("code_inline") == 0


def test_a_command_is_shown_whole():
    """A card's command is to be run: a long path in it is not cut, as it is in an error."""
    path = "/a" * 2_000
    assert path in fenced(f"hf-bico port {path} --to b")
    assert path in code(path)
