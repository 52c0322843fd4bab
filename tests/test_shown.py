"""What documents show as printed, and what they quote, is what the code says."""

from support.snippets import PAGES, ROOT, by_the_paper, is_said, messages, quoted, unlike

from hf_bico.reports.worth import Word

SHOWN = """ target without the port                 71.2%
 target + τ by bico, the paper's method  78.2%
 target + ported τ                       83.9%
auto took response
Verdict: works
Next: nothing more: use it"""


def test_errors_that_guides_quote_are_those_of_the_code():
    said = [*messages(ROOT / "hf_bico"), *(f"Verdict: {worth}" for worth in Word)]
    guides = [page for page in PAGES if page.parent.name == "guides"]
    assert [line for page in guides for line in quoted(page) if not is_said(line, said)] == []
    assert sum(len(quoted(page)) for page in guides) > 20
    assert not is_said("the fine-tuned source itself scores …, which is as good as chance", said)


def test_shown_output_must_be_what_is_printed():
    """Words must be the same and numbers near; what is left out is an ellipsis."""
    printed = "\n".join(("a table of 40 rows", "bico │ 93.8 % │ of 597", "Verdict: works: 81.9 % to 96.8 %", "end"))
    assert unlike("bico │ 94.4 % │ of 597\n…\nVerdict: works: 81.0 % to 96.8 %", printed) == []
    assert unlike("bico │ 99.9 % │ of 597", printed) == ["bico │ 99.9 % │ of 597"]
    assert unlike("Verdict: partly: 81.9 % to 96.8 %", printed) == ["Verdict: partly: 81.9 % to 96.8 %"]
    assert unlike("Verdict: works: 81.0 % …", printed) == []
    assert unlike("Verdict: works: 71.0 % …", printed) == ["Verdict: works: 71.0 % …"]
    assert unlike("Verdict: works: 81.9 %", printed) == ["Verdict: works: 81.9 %"]
    assert unlike("end\nbico │ 93.8 % │ of 597", printed) == ["bico │ 93.8 % │ of 597"], "in the order that is printed"


def test_of_a_port_by_auto_the_rows_that_it_shares_with_the_papers_method_are_compared():
    start = " target without the port                 71.2%"
    assert by_the_paper(SHOWN, other_head=False).splitlines() == [start, " target + ported τ  78.2%"]
    assert by_the_paper(SHOWN, other_head=True) == start
