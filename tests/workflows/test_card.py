"""The card of a port: what it says is what was measured, its code runs, and it is made anew from the report."""

import contextlib
import io
import json
import re
import shutil

import datasets
import pytest
import yaml
from huggingface_hub import HfApi, ModelCard, hf_hub_download
from support.commands import assert_refused, hf_bico, json_of
from support.deltas import ported as ported_as
from support.deltas import publish
from support.ports import PORT
from support.repos import write_family

from hf_bico.io.hub import Hub
from hf_bico.reports.card import MARKER, card_text
from hf_bico.reports.report import PortReport
from hf_bico.reports.usage import PICTURE, SAMPLE
from hf_bico.tasks.samples import read_task, samples_of
from hf_bico.tasks.splits import HubDataset
from hf_bico.workflows.used import _run

PARTS = ["Scores", "Use it", "What it changed, and may have broken", "How it was made", "What it cost"]
PARTS += ["Make it again", "Limits", "Citation"]


def body(folder) -> str:
    return (folder / "README.md").read_text(encoding="utf-8").split("---\n", 2)[2]


def test_what_matters_most_comes_first(pushed):
    folder, _, outcome = pushed
    text = body(folder)
    assert re.findall(r"^## (.+)$", text, re.MULTILINE) == PARTS
    opening = text.split("## ")[0].strip().splitlines()[2]
    scores = outcome.evaluation
    assert opening.startswith("**Works.** [demo/ft](")
    for score in (scores.ported, scores.zero_shot, scores.source):
        assert f"{score.value:.1%}" in opening
    assert len(re.sub(r"```.*?```|\|", " ", text, flags=re.DOTALL).split()) < 750


def test_links_lead_to_the_hub(pushed):
    links = re.findall(r"\]\((http[^)]+)\)", body(pushed[0]))
    names = {"demo/ft", "demo/base", "demo/plus", "datasets/demo/task"}
    assert {f"{HfApi().endpoint}/{name}" for name in names} <= set(links)


def test_its_code_prints_what_the_card_says(pushed, world, tmp_path, monkeypatch):
    """The picture is the first evaluation sample's; a reader who runs the code on it sees the same."""
    text = body(pushed[0])
    code = text.split("```python\n")[1].split("```")[0]
    said = text.split("```text\n")[1].split("\n```")[0]
    hub = Hub()
    split = (dataset := HubDataset(hub, hub.resolve("demo/task", "dataset"))).split("test")
    sample = next(iter(samples_of(split, [0], read_task(dataset, split, {}, None))))
    sample.inputs.save(tmp_path / PICTURE)
    monkeypatch.chdir(tmp_path)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(code, {})
    assert printed.getvalue().strip() == said


def test_code_that_fails_is_said_to_fail():
    failed = _run('raise ValueError("no such thing")', {})
    assert (failed.output, failed.error) == (None, "ValueError: no such thing")
    assert _run('print("a/b")', {"a/b": "/here"}).output == "/here"
    assert len(_run("for i in range(99): print(i)", {}).output.splitlines()) == 13


def test_within_a_memory_code_is_shown_and_not_run(world, capsys, monkeypatch, tmp_path):
    report = json_of(capsys, monkeypatch, *PORT, "--memory", "40GB", "--output", tmp_path / "out")
    (use,) = report["opening"]["used"]
    assert "output" not in use and "error" not in use
    assert use["code"] in body(tmp_path / "out") and "printed, when" not in body(tmp_path / "out")


def test_flips_are_counted_on_the_samples(pushed):
    """Won and lost add up to the difference of the scores, for whomever the port is held against."""
    scores = pushed[2].evaluation
    against = {each.against: each for each in scores.paired}
    for role in ("zero_shot", "naive", "source"):
        found, other = against[role], getattr(scores, role)
        assert found.won - found.lost == round((scores.ported.value - other.value) * scores.ported.n)
    assert sum(each.n for each in scores.classes) == scores.ported.n
    right = sum(each.n * each.after for each in scores.classes)
    assert right == pytest.approx(scores.ported.value * scores.ported.n)


def test_another_dataset_is_scored_too(world, capsys, monkeypatch, tmp_path):
    """The task's own test split again with its classes in another order: the scores must be those of the task."""
    place, file = tmp_path / "elsewhere", "data/test-00000-of-00001.parquet"
    shutil.copytree(world / "task", place)
    rows = datasets.Dataset.from_parquet(str(place / file))
    names = rows.features["label"].names
    turned = rows.features | {"label": datasets.ClassLabel(names=names[::-1])}
    labels = [len(names) - 1 - label for label in rows["label"]]
    made = {"image": rows["image"], "label": labels}
    datasets.Dataset.from_dict(made, features=datasets.Features(turned)).to_parquet(place / file)
    (place / "data" / "train-00000-of-00001.parquet").unlink()
    HfApi().create_repo("demo/elsewhere", repo_type="dataset")
    HfApi().upload_folder(folder_path=place, repo_id="demo/elsewhere", repo_type="dataset")
    words = (*PORT, "--also", "demo/elsewhere", "--output", tmp_path / "out")
    found = json_of(capsys, monkeypatch, *words)["evaluation"]
    (other,) = found["elsewhere"]
    assert other["dataset"]["name"] == "demo/elsewhere"
    for role in ("zero_shot", "ported"):
        assert other[role] == found[role]
    assert other["paired"]["won"] == found["paired"][0]["won"]
    card = ModelCard.load(tmp_path / "out" / "README.md")
    assert [result.dataset_type for result in card.data.eval_results] == ["demo/task", "demo/elsewhere"]
    assert "demo/elsewhere" in json.loads((tmp_path / "out" / "hf_bico.json").read_text())["command"]
    assert_refused(hf_bico(capsys, monkeypatch, *PORT, "--also", "demo/nowhere"), "demo/nowhere")
    own = hf_bico(capsys, monkeypatch, *PORT, "--also", "demo/task")
    assert own.code == 2 and "the port is scored on it anyway" in own.err


def test_a_folder_is_written_anew_and_keeps_its_owners_words(pushed, capsys, monkeypatch, tmp_path):
    place = tmp_path / "port"
    shutil.copytree(pushed[0], place)
    before = body(place).strip()
    (place / "README.md").write_text("# gone\n\n" + MARKER + "\n\nAsk *me* first.\n")
    ran = hf_bico(capsys, monkeypatch, "card", place)
    assert ran.code == 0, ran.err
    assert body(place).strip() == before + "\n\nAsk *me* first."
    hf_bico(capsys, monkeypatch, "card", place)
    assert body(place).count("Ask *me* first.") == 1


def test_a_repos_card_is_pushed_alone(pushed, capsys, monkeypatch):
    _, repo, _ = pushed
    shown = hf_bico(capsys, monkeypatch, "card", repo)
    assert shown.out.startswith("---\n") and MARKER in shown.out
    api = HfApi()
    head = api.model_info(repo)
    text = ModelCard.load(repo).content + "\nMine.\n"
    api.upload_file(path_or_fileobj=text.encode(), path_in_repo="README.md", repo_id=repo)
    pushed_again = hf_bico(capsys, monkeypatch, "card", repo, "--push")
    assert pushed_again.code == 0, pushed_again.err
    assert ModelCard.load(repo, ignore_metadata_errors=False).content.rstrip().endswith("Mine.")
    after = api.model_info(repo)
    assert {f.rfilename for f in after.siblings} == {f.rfilename for f in head.siblings}
    assert hf_bico(capsys, monkeypatch, *PORT, "--push-to", repo, "--allow-regression").code == 0
    assert ModelCard.load(repo).content.rstrip().endswith("Mine.")  # a port that is pushed again keeps it too


def test_what_has_no_report_has_no_card(world, capsys, monkeypatch):
    assert_refused(hf_bico(capsys, monkeypatch, "card", "demo/base"), "hf_bico.json", "not made by hf-bico")
    for flag in ("--push", "--create-pr"):
        ran = hf_bico(capsys, monkeypatch, "card", world / "base", flag)
        assert_refused(ran, f"{world / 'base'} is a folder on this machine", f"leave out {flag}, or name the repo")
        assert "(local folder)" not in ran.err


def test_the_fine_tunes_owner_is_told_once(world, capsys, monkeypatch):
    words = (*PORT, "--push-to", "demo/newer-version", "--allow-regression", "--announce")
    url = json_of(capsys, monkeypatch, *words)["announced"]
    number = int(url.rsplit("/", 1)[1])
    proposed = ModelCard.load(hf_hub_download("demo/ft", "README.md", revision=f"refs/pr/{number}"))
    assert proposed.data.to_dict()["new_version"] == "demo/newer-version"
    assert "new_version" not in ModelCard.load("demo/ft").data.to_dict()  # it is the owner's to take
    assert_refused(hf_bico(capsys, monkeypatch, *PORT, "--announce"), "--announce", "--push")


@pytest.fixture(scope="module")
def bert(hub, tmp_path_factory):
    root = tmp_path_factory.mktemp("card")
    write_family(root, "bert")
    return publish(root, "bert", "ft", "card")


def test_a_lora_says_so_and_its_code_prints_an_answer(bert):
    report = PortReport.from_json(ported_as(bert, "lora"))
    data = ModelCard.load(f"{bert}-as-lora").data.to_dict()
    assert "lora" in data["tags"] and data["library_name"] == "peft"
    ours, stock = report.opening.used
    assert "hf_bico.from_pretrained" in ours.code and "'label'" in ours.output
    assert "hf_bico" not in stock.code and stock.error is None


def test_texts_of_a_closed_dataset_are_not_shown(bert):
    HfApi().update_repo_settings(f"{bert}-task", repo_type="dataset", visibility="private")
    report = PortReport.from_json(ported_as(bert, "model"))
    assert SAMPLE in report.opening.used[0].code
    HfApi().update_repo_settings(f"{bert}-task", repo_type="dataset", visibility="public")
    report = PortReport.from_json(ported_as(bert, "model"))
    assert SAMPLE not in report.opening.used[0].code


def test_a_report_without_an_opening_has_no_card(pushed):
    from dataclasses import replace

    from hf_bico import PortError

    report = replace(PortReport.from_json(pushed[2].report), opening=None)
    with pytest.raises(PortError, match="port again"):
        card_text(report, "https://hub", ())


def test_a_benchmark_has_its_leaderboards_file(world, capsys, monkeypatch, tmp_path):
    """Where the Hub lists the dataset as one, and it has one task of the split that was scored."""
    api, place = HfApi(), tmp_path / "data"
    shutil.copytree(world / "task", place)
    card = (place / "README.md").read_text() if (place / "README.md").exists() else "---\n---\n"
    tagged = card.replace("---\n", "---\ntags:\n- benchmark:official\n", 1)
    tasks = "tasks:\n- {id: shapes, config: default, split: test}\n- {id: others, config: default, split: train}\n"

    def scored(name: str, card: str, tasks: str) -> list[str]:
        (place / "README.md").write_text(card)
        (place / "eval.yaml").write_text(tasks)
        api.create_repo(name, repo_type="dataset")
        api.upload_folder(folder_path=place, repo_id=name, repo_type="dataset")
        words = ["port", "demo/ft", "--to", "demo/plus", "--dataset", name, "-n", "8", "--method", "bico"]
        out = tmp_path / name.split("/")[1]
        assert hf_bico(capsys, monkeypatch, *words, "--output", out).code == 0
        return list((out / ".eval_results").glob("*.yaml"))

    (file,) = scored("demo/benchmark", tagged, tasks)
    (entry,) = yaml.safe_load(file.read_text())
    report = json.loads((tmp_path / "benchmark" / "hf_bico.json").read_text())
    assert entry["dataset"]["id"] == "demo/benchmark" and entry["dataset"]["task_id"] == "shapes"
    assert entry["value"] == round(report["evaluation"]["ported"]["value"], 6)
    assert scored("demo/no-benchmark", card, tasks) == []
    assert scored("demo/two-tasks", tagged, tasks.replace("split: train", "split: test")) == []


def test_languages_are_those_of_both_models(world, capsys, monkeypatch, tmp_path):
    """The fine-tune's card and the new base's each name theirs."""
    for name, language in (("ft", "de"), ("plus", "[en, de]")):
        shutil.copytree(world / name, tmp_path / name)
        card = tmp_path / name / "README.md"
        text = card.read_text() if card.exists() else "---\n---\n"
        card.write_text(text.replace("---\n", f"---\nlanguage: {language}\n", 1))
    words = ["port", tmp_path / "ft", "--base", "demo/base", "--to", tmp_path / "plus", "--dataset", "demo/task"]
    out = tmp_path / "out"
    assert hf_bico(capsys, monkeypatch, *words, "-n", "8", "--method", "bico", "--output", out).code == 0
    assert ModelCard.load(out / "README.md").data.to_dict()["language"] == ["en", "de"]
