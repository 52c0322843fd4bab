"""What is wrong in a plan is refused in one line, with the file and the key, before anything is read or written."""

from pathlib import Path

import pytest
import yaml
from support.commands import assert_refused, hf_bico, json_of

from hf_bico import PortError
from hf_bico.workflows.fleet.cells import cells_of
from hf_bico.workflows.fleet.ledger import Entry, Ledger, Moved, OnDisk, State
from hf_bico.workflows.fleet.reading import read
from hf_bico.workflows.fleet.tasks import Task

PLAN = {
    "output": "ports",
    "sources": ["org/ft"],
    "targets": ["org/new"],
    "common": {"dataset": "org/task"},
}


@pytest.fixture
def plan(tmp_path, monkeypatch):
    """Writes a plan with some parts changed, in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def write(change: dict | str) -> Path:
        text = change if isinstance(change, str) else yaml.safe_dump(PLAN | change)
        Path("plan.yaml").write_text(text)
        return Path("plan.yaml")

    return write


WRONG = [
    ("sources: [a", "plan.yaml: the plan is no readable YAML"),
    ("- a", "plan.yaml: a plan is a mapping of output, push"),
    ({"source": ["a"]}, "source is not a setting; did you mean sources?"),
    ({"sources": []}, "sources is a list of one source or more"),
    ({"sources": ["a/b/c"]}, "sources[0]: 'a/b/c' is neither a local folder nor a repo"),
    ({"sources": [{"dataset": "org/a"}]}, "sources[0] does not say which source"),
    ({"sources": [{"source": "org/ft", "datset": "a"}]}, "sources[0].datset is not a setting; did you mean dataset?"),
    ({"sources": [{"source": "org/ft", "output": "a"}]}, "a plan says it at its top, as output"),
    ({"sources": [{"source": "org/ft", "name": "!"}]}, "sources[0].name: '!' has neither letters nor digits"),
    ({"sources": ["empty"]}, "sources[0]: empty is no model, and no folder in it is one"),
    (
        {"sources": ["org/ft", "lab/ft"]},
        "sources[1] × targets[0] and sources[0] × targets[0] are both called ft-on-new",
    ),
    (
        {"targets": [{"target": "org/new", "set": "a=1"}]},
        "targets[0].set is not a setting; did you mean method_options?",
    ),
    ({"targets": [{"target": "org/new", "batch-size": 2}]}, "did you mean batch_size?"),
    ({"common": {"dataset": "org/task", "n": "many"}}, "common.n is a whole number, not 'many'"),
    ({"common": {"dataset": "org/task", "seed": -1}}, "common.seed is 0 or more, not -1"),
    ({"common": {"dataset": "org/task", "streaming": 1}}, "common.streaming is true or false, not 1"),
    ({"common": {"dataset": "org/task", "templates": "no.txt"}}, "common.templates: there is no file no.txt"),
    ({"common": {"dataset": "org/task", "split": None}}, "common.split has no value"),
    ({"common": {}}, "sources[0] has no samples: add a dataset, to it or to common"),
    ({"methods": ["bicco"]}, "sources[0] × targets[0] × methods[0]: unknown method 'bicco'"),
    ({"methods": [{"method": "bico", "method_options": {"a": 1}}]}, "bico has no option 'a'"),
    ({"common": {"dataset": "a", "n": 1, "per_class": 1}}, "per_class and n both say how many"),
    ({"common": {"dataset": "a", "alpha": "some"}}, "alpha is a number or auto"),
    ({"common": {"dataset": "a", "form": "zip"}}, "form zip is not a form"),
    ({"common": {"dataset": "a", "maps": "b"}, "methods": ["bico"]}, "maps bring the method that made them"),
    ({"output": None}, "say where the ports go"),
    ({"output": None, "push": "org"}, "name a dataset repo with ledger"),
    ({"push": "org/name"}, "push: 'org/name' is not a namespace"),
    ({"ledger": "name"}, "ledger: 'name' is not a dataset repo"),
    ({"hardware": {"flavour": "a"}}, "hardware.flavour is not a setting; did you mean flavor?"),
    ({"align": {"n": 1, "per_class": 2}, "methods": ["bico"]}, "align: per_class and n both say how many"),
    ({"align": {"maps": "a"}, "methods": ["bico"]}, "align.maps is not a setting"),
    ({"align": True}, "align: the maps of auto cannot be kept"),
]


@pytest.mark.parametrize(("change", "words"), WRONG, ids=[words for _, words in WRONG])
def test_what_is_wrong_in_a_plan_is_refused(plan, capsys, monkeypatch, change, words):
    Path("empty").mkdir()
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")  # whoever asked the Hub would be told
    ran = hf_bico(capsys, monkeypatch, "fleet", plan(change))
    assert_refused(ran, "plan.yaml: ", words)
    assert "⟦" not in ran.err and {path.name for path in Path().iterdir()} == {"plan.yaml", "empty"}


def test_no_plan_at_all(capsys, monkeypatch, tmp_path):
    assert_refused(hf_bico(capsys, monkeypatch, "fleet", tmp_path / "no.yaml"), "no.yaml: the plan cannot be read")
    (tmp_path / "plan.yaml").write_text(yaml.safe_dump(PLAN))
    ran = hf_bico(capsys, monkeypatch, "fleet", tmp_path / "plan.yaml", "--on", "moon")
    assert_refused(ran, "--on is here or hf-jobs, not 'moon'")


def test_what_is_more_specific_holds(plan):
    """A source before a target before a method before all."""
    every = {"dataset": "org/task", "n": 1, "seed": 1, "eval_n": 1, "max_length": 1}
    change = {
        "common": every,
        "methods": [{"method": "bico", "n": 2, "seed": 2, "eval_n": 2}],
        "targets": [{"target": "org/new", "n": 3, "seed": 3, "layers": 7}],
        "sources": [{"source": "org/ft", "n": 4, "alpha": 0.5, "method_options": {"label_free": 1}}],
    }
    (cell,) = cells_of(read(plan(change)), "org")
    found = cell.config
    assert (found.n, found.seed, found.eval_n, found.max_length) == (4, 3, 2, 1)
    assert (found.alpha, found.layers, found.method_options) == (0.5, "7", ("label_free=1",))
    assert (str(found.output), found.push_to) == ("ports/ft-on-new-bico", "org/ft-on-new-bico")


def test_a_name_that_no_repo_can_have_is_refused(plan):
    found = read(plan({"sources": [{"source": "org/ft", "name": "a" * 100}]}))
    assert len(cells_of(found, None)) == 1
    with pytest.raises(PortError, match=r"sources\[0\] × targets\[0\]: .*Give it a shorter name"):
        cells_of(found, "org")


def test_names_are_made_of_what_is_ported(plan):
    change = {
        "sources": ["org/ft@v1", {"source": "org/ft", "name": "mine", "form": "delta"}],
        "methods": ["auto", {"method": "bico", "name": "paper"}],
    }
    names = [cell.name for cell in cells_of(read(plan(change)), None)]
    assert names == ["ft-v1-on-new", "ft-v1-on-new-paper", "mine-on-new-delta", "mine-on-new-paper-delta"]


def test_printed_commands_are_what_a_user_would_give(plan, capsys, monkeypatch):
    change = {"targets": ["org/new", "org/other"], "common": {"dataset": "org/task", "form": "lora", "n": 5}}
    shown = hf_bico(capsys, monkeypatch, "fleet", plan(change), "--print")
    assert shown.out.splitlines() == [
        f"hf-bico port org/ft --to org/{name} --dataset org/task -n 5 --as lora --output ports/ft-on-{name}-lora"
        for name in ("new", "other")
    ]
    words = json_of(capsys, monkeypatch, "fleet", "plan.yaml", "--print")
    assert words[0][:3] == ["hf-bico", "port", "org/ft"] and not Path("ports").exists()


def test_what_changes_nothing_makes_nothing_anew(plan):
    def key(**common) -> str:
        change = {"common": {"dataset": "org/task"} | common}
        (cell,) = cells_of(read(plan(change)), None)
        return Task(cell.name, cell.config, cell.method).key

    assert key() == key(batch_size=2) == key(seed=0)
    assert len({key(), key(seed=1), key(n=5), key(alpha="auto"), key(allow_regression=True)}) == 5


def test_changes_of_others_stay_in_a_ledger(tmp_path):
    """Where somebody else kept another meanwhile."""

    class Shared(OnDisk):
        seen: str | None = None

        def read(self):
            self.seen = super().read()
            return self.seen

        def write(self, text):
            if super().read() != self.seen:
                raise Moved("it has moved")
            super().write(text)
            self.seen = text

    def entry(state: State) -> Entry:
        return Entry("key", "port", "a", "b", "bico", "hf-bico port", state)

    mine, theirs = (Ledger(Shared(tmp_path / "fleet.json")) for _ in range(2))
    theirs.set("theirs", entry(State.DONE))
    mine.set("mine", entry(State.FAILED))
    found = Ledger(OnDisk(tmp_path / "fleet.json")).entries
    assert {name: each.state for name, each in found.items()} == {"theirs": State.DONE, "mine": State.FAILED}


def test_a_file_that_is_no_ledger_is_left_alone(tmp_path):
    (tmp_path / "fleet.json").write_text("[1]")
    with pytest.raises(PortError, match="is not the ledger of a fleet"):
        Ledger(OnDisk(tmp_path / "fleet.json"))
