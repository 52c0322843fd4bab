"""Models of sound end to end: a port to the base's twin says what the fine-tune says; what cannot be is refused."""

import json
import shutil

import numpy as np
import pytest
import torch
import transformers
from huggingface_hub import HfApi, ModelCard
from support.commands import assert_refused, hf_bico
from support.family_twins import gradient_step, twin
from support.sounds import (
    KINDS,
    RATE,
    ROWS,
    TONES,
    asked,
    ear_of,
    letters,
    model_of,
    rows_of,
    spoken,
    write_rows,
    write_world,
)
from support.tasks import task_of
from tokenizers import AddedToken

import hf_bico as package
from hf_bico import BiCo, PortError, port
from hf_bico.families import family_of
from hf_bico.io.hub import Hub
from hf_bico.workflows.config import PortConfig
from hf_bico.workflows.port import run


@pytest.fixture(autouse=True)
def no_bars():
    """As on the command line, which silences them before transformers is imported."""
    transformers.utils.logging.disable_progress_bar()


@pytest.fixture(scope="module")
def worlds(tmp_path_factory):
    made = {}

    def world(kind: str):
        if kind not in made:
            made[kind] = write_world(tmp_path_factory.mktemp(kind), kind)
        return made[kind]

    return world


@pytest.mark.parametrize("kind", KINDS)
def test_a_port_to_a_twin_says_what_the_fine_tune_says(kind, worlds, tmp_path):
    root, out = worlds(kind), tmp_path / "out"
    config = {"base": str(root / "base"), "n": 36, "method": "bico", "allow_regression": True, "output": out}
    config["method_options"] = ("rtol=1e-6",)
    outcome = run(PortConfig(*(str(root / part) for part in ("ft", "plus", "task")), **config), Hub())
    own, theirs = (outcome.report["evaluation"][what] for what in ("ported", "source"))
    assert own["metric"] == KINDS[kind].metric
    assert own["value"] == pytest.approx(theirs["value"], abs=0.02 * max(1, theirs["value"]))
    assert own["also"] == pytest.approx(theirs["also"], rel=0.02)
    assert outcome.report["evaluation"]["zero_shot"] != theirs
    cls = getattr(transformers, KINDS[kind].cls)
    theirs, ours = (cls.from_pretrained(folder) for folder in (root / "ft", out))
    assert ours.config.id2label == theirs.config.id2label
    tokenizer = transformers.AutoTokenizer.from_pretrained(out) if kind != "classes" else None
    task, samples = task_of(root / "task", theirs)
    answers = []
    for model in (theirs, ours):
        objective = asked(kind, model, tokenizer, task)
        with torch.no_grad():
            answers.append(torch.cat([objective.answers(model, objective.encode([each])) for each in samples[:9]]))
    assert (answers[0] - answers[1]).norm() < 0.03 * answers[0].norm()


def on_hub(root, kind: str) -> None:
    api = HfApi()
    for part in ("base", "ft", "plus", "task"):
        repo = "dataset" if part == "task" else "model"
        api.create_repo(f"demo/{kind}-{part}", repo_type=repo)
        api.upload_folder(folder_path=root / part, repo_id=f"demo/{kind}-{part}", repo_type=repo)


def test_letters_go_from_hub_to_hub(worlds, capsys, monkeypatch):
    on_hub(worlds("letters"), "letters")
    words = ["port", "demo/letters-ft", "--base", "demo/letters-base", "--to", "demo/letters-plus"]
    words += ["--dataset", "demo/letters-task", "--method", "bico", "-n", "30", "--allow-regression"]
    ran = hf_bico(capsys, monkeypatch, *words, "--push-to", "demo/letters-port")
    assert ran.code == 0, ran.err
    told = ModelCard.load("demo/letters-port").data
    assert (told.pipeline_tag, told.eval_results[0].metric_type) == ("automatic-speech-recognition", "wer")
    said = transformers.pipeline("automatic-speech-recognition", "demo/letters-port")(
        {"raw": spoken(1), "sampling_rate": RATE}
    )
    assert set(said["text"]) <= set("ab ")
    ran = hf_bico(capsys, monkeypatch, *words, "--as", "delta", "--push-to", "demo/letters-delta")
    assert ran.code == 0, ran.err
    sound = {"input_values": torch.from_numpy(spoken(1))[None]}
    whole = transformers.AutoModelForCTC.from_pretrained("demo/letters-port")
    with torch.no_grad():
        a, b = (model(**sound).logits for model in (whole, package.from_pretrained("demo/letters-delta").model))
    assert torch.allclose(a, b, atol=1e-2)


@pytest.mark.parametrize("kind", KINDS)
def test_live_models_are_ported_by_their_own_loss(kind):
    torch.manual_seed(0)
    model = model_of(kind, 40 if kind == "speech" else 7)
    inputs = {"input_values": torch.from_numpy(np.stack([spoken(1)[:4200]] * 6)).double()}
    inputs["input_values"] = inputs["input_values"] + 0.3 * torch.randn(6, 4200).double()
    if kind == "speech":
        inputs = {"input_features": torch.randn(6, 8, 100).double()}
    labels = torch.arange(6) % 3 if kind == "classes" else torch.randint(5, 7, (6, 3))
    batch = inputs | {"labels": labels}
    step = 1e-2
    stepped = gradient_step(model, lambda m, b: m(**b).loss, batch, step=step)
    found = port(
        tuned=stepped, base=model, target=twin(model), calibration=[batch], method=BiCo(rtol=1e-9), trust_base=True
    )
    want = family_of(model).sites(model)
    assert len(found.moved) == len(want)
    assert all(each.residual_in < 1e-3 for each in found.moved if hasattr(each, "residual_in"))


@pytest.mark.parametrize("kind", ["classes", "letters"])
def test_padding_that_a_model_sets_to_zero_stops_no_gradient(kind):
    """A model that is told where padding is writes to what its feature projection gave."""
    model, waves = model_of(kind), torch.randn(6, 4200, generator=torch.Generator().manual_seed(0)).double()
    labels = torch.arange(6) % 3 if kind == "classes" else torch.tensor([[5, 6, 5]] * 6)
    plain = {"input_values": waves, "labels": labels}
    stepped, mask = gradient_step(model, lambda m, b: m(**b).loss, plain), torch.ones(6, 4200, dtype=torch.long)
    given = {"tuned": stepped, "base": model, "target": model_of(kind, seed=1), "trust_base": True}
    one, other = (
        dict(port(**given, calibration=[batch], method=BiCo()).delta)
        for batch in (plain, {**plain, "attention_mask": mask})
    )
    assert all(torch.allclose(one[key], other[key], atol=1e-9) for key in one)
    mask[:3, 3000:] = 0
    assert port(**given, calibration=[{**plain, "attention_mask": mask}], method=BiCo()).moved


def test_live_letters_are_the_same_in_both_models():
    model = model_of("letters")
    tuned = {key: tensor + 0.01 for key, tensor in model.state_dict().items()}
    batch = {"input_values": torch.zeros(2, 4200).double(), "labels": torch.tensor([[5, 6]] * 2)}
    for vocabulary, changed, said in ((9, {}, "vocab_size=7"), (7, {"pad_token_id": 4}, "pad_token_id=0")):
        with pytest.raises(PortError, match=said):
            port(tuned=tuned, base=model, target=model_of("letters", vocabulary, **changed), calibration=[batch])


def test_tokens_that_a_fine_tune_added_come_along_with_speech(worlds, tmp_path):
    """Every model writes with tokens of its own, and the base with the fine-tune's."""
    root, new = worlds("speech"), "<pause>"
    words = transformers.AutoTokenizer.from_pretrained(root / "ft")
    words.add_tokens([AddedToken(new, special=True)], special_tokens=True)
    tuned = transformers.WhisperForConditionalGeneration.from_pretrained(root / "ft")
    rows = len(tuned.model.decoder.embed_tokens.weight)
    tuned.resize_token_embeddings(rows + 1, mean_resizing=False)
    with torch.no_grad():
        tuned.proj_out.weight[rows:] = torch.randn(1, 24, generator=torch.Generator().manual_seed(5))
    for part in (tuned, words, ear_of("speech")):
        part.save_pretrained(tmp_path / "ft")
    said = {
        split: [row | {"sentence": f"{row['sentence']} {new} a"} for row in rows_of("speech", split)] for split in ROWS
    }
    task = write_rows(tmp_path / "task", said)
    config = {"base": str(root / "base"), "n": 36, "method": "bico", "allow_regression": True, "add_tokens": True}
    paths = [str(each) for each in (tmp_path / "ft", root / "plus", task)]
    outcome = run(PortConfig(*paths, output=tmp_path / "out", method_options=("rtol=1e-6",), **config), Hub())
    assert not outcome.report["left"]
    made = transformers.WhisperForConditionalGeneration.from_pretrained(tmp_path / "out")
    assert transformers.AutoTokenizer.from_pretrained(tmp_path / "out").convert_tokens_to_ids(new) == rows
    heard = torch.randn(2, 8, 100, generator=torch.Generator().manual_seed(1))
    ids = torch.tensor([[0, 5, rows, 6], [0, rows, 5, 7]])
    with torch.no_grad():
        wanted, got = (each(input_features=heard, decoder_input_ids=ids).logits for each in (tuned, made))
    assert (got - wanted).norm() < 0.05 * wanted.norm()


REFUSED = {
    "a text dataset": ({"text": "a b", "label": 1}, (), "takes sound and transcription"),
    "no transcription": ({"audio": True, "label": 1}, (), "takes sound and transcription"),
    "no such column": ({"audio": True, "text": "ab"}, ("--columns", "transcription=said"), "'said'"),
    "other letters": ({"audio": True, "text": "AB BA"}, (), "row 0 of the split 'test'", "vocabulary (ab …"),
    "no sound": ({"audio": None, "text": "ab"}, (), "row 0 has no sound"),
    "too short": ({"audio": True, "text": "ab" * 90}, (), "row 0 of the split 'test'", "too short"),
    "a fitted head": ({"audio": True, "text": "ab"}, ("--head", "ridge"), "ridge is not for a model of ctc"),
    "balanced classes": ({"audio": True, "text": "ab"}, ("--per-class", "1"), "what is said", "random"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_data_that_does_not_suit_is_refused_in_one_line(what, worlds, tmp_path, capsys, monkeypatch):
    row, words, *said = REFUSED[what]
    root = worlds("letters")
    row = row | ({"audio": rows_of("letters", "train")[0]["audio"]} if row.get("audio") else {})
    task = write_rows(tmp_path / "task", {"train": [row] * 4, "test": [row] * 2})
    ran = hf_bico(
        capsys, monkeypatch, *("port", root / "ft", "--base", root / "base", "--to", root / "plus", "--dataset", task),
        *words, *(() if what == "balanced classes" else ("-n", "2")), "--output", tmp_path / "out",
    )  # fmt: skip
    assert_refused(ran, *said)
    assert not (tmp_path / "out").exists()


def test_repos_that_lack_something_are_refused_in_one_line(worlds, tmp_path, capsys, monkeypatch):
    root = worlds("letters")
    for part in ("ft", "base", "plus"):
        shutil.copytree(root / part, tmp_path / part)

    def refused(*said):
        parts = ("port", tmp_path / "ft", "--base", tmp_path / "base", "--to", tmp_path / "plus")
        ran = hf_bico(capsys, monkeypatch, *parts, "--dataset", root / "task", "-n", "2")
        assert_refused(ran, *said)

    heard = tmp_path / "plus" / "preprocessor_config.json"
    heard.rename(tmp_path / "aside")
    refused("plus (local folder) has no feature extractor (preprocessor_config.json)")
    (tmp_path / "aside").rename(heard)
    config = json.loads((tmp_path / "ft" / "config.json").read_text())
    (tmp_path / "ft" / "config.json").write_text(json.dumps(config | {"use_weighted_layer_sum": True}))
    refused("use_weighted_layer_sum")
    (tmp_path / "ft" / "config.json").write_text(json.dumps(config))
    for name in ("vocab.json", "tokenizer_config.json"):
        (tmp_path / "ft" / name).unlink()
    refused("ft (local folder) has no tokenizer")


def test_the_ports_letters_are_the_fine_tunes(worlds, tmp_path):
    """Also where the new base has a head and letters of its own."""
    root = worlds("letters")
    for part in ("ft", "base"):
        shutil.copytree(root / part, tmp_path / part)
    own = model_of("letters", 9, seed=3).float()
    own.save_pretrained(tmp_path / "plus")
    shutil.copy(root / "plus" / "preprocessor_config.json", tmp_path / "plus")
    other = {"<pad>": 8, "|": 0, "x": 1, "y": 2, "z": 3, "a": 4, "<unk>": 5, "<s>": 6, "</s>": 7}
    (tmp_path / "v.json").write_text(json.dumps(other))
    transformers.Wav2Vec2CTCTokenizer(str(tmp_path / "v.json")).save_pretrained(tmp_path / "plus")
    paths = [str(tmp_path / part) for part in ("ft", "plus")]
    config = {"base": str(tmp_path / "base"), "n": 8, "method": "bico", "allow_regression": True}
    run(PortConfig(*paths, str(root / "task"), output=tmp_path / "out", **config), Hub())
    made = transformers.AutoModelForCTC.from_pretrained(tmp_path / "out")
    assert (made.config.vocab_size, made.config.pad_token_id) == (7, 0)
    words = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    assert words.get_vocab() == letters(tmp_path / "letters").get_vocab()


def test_classes_of_sounds_are_the_models():
    assert tuple(model_of("classes").config.id2label.values()) == TONES
