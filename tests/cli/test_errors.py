"""A user's mistake: one line, exit code 2, nothing written, nothing pushed."""

import json

import pytest
import torch
from huggingface_hub import HfApi
from support.commands import TINY_PORT, assert_refused, hf_bico
from support.refusals import WEIGHTS, rewrite
from support.world import config, write_model


def test_unknown_repo(port):
    assert_refused(port(source="demo/nothing"), "demo/nothing", "not found", "--token")


def test_unknown_revision(port):
    assert_refused(port(source="demo/ft@v9"), "demo/ft@v9", "no such revision")


def test_neither_folder_nor_repo(port):
    assert_refused(port(source="a/b/c"), "'a/b/c'", "neither")


def test_gated_repo(port, world):
    owner = HfApi(token="hf_local_other")
    if not owner.repo_exists("other/gated"):
        owner.create_repo("other/gated")
        owner.upload_folder(folder_path=world / "ft", repo_id="other/gated")
        owner.update_repo_settings("other/gated", gated="manual")
    assert_refused(port(source="other/gated"), "other/gated is gated", "ask for access at", "/other/gated")


def test_private_repo_needs_its_token(port, world, capsys, monkeypatch):
    owner = HfApi(token="hf_local_other")
    owner.create_repo("other/secret", private=True)
    owner.upload_folder(folder_path=world / "plus", repo_id="other/secret")
    assert_refused(port(to="other/secret"), "other/secret", "if it is private")
    ran = hf_bico(
        capsys,
        monkeypatch,
        "port",
        "demo/ft",
        "--to",
        "other/secret",
        "--dataset",
        "demo/task",
        "-n",
        "20",
        "--dry-run",
        "--token",
        "hf_local_other",
    )
    assert ran.code == 0, ran.err


def test_bad_token(port):
    assert_refused(port("--token", "hf_wrong"), "does not accept the token", "hf auth login")


def test_models_of_two_libraries(port):
    api = HfApi()
    api.create_repo("demo/text", exist_ok=True)
    api.upload_file(path_or_fileobj=b"{}", path_in_repo="config.json", repo_id="demo/text")
    assert_refused(port(to="demo/text"), "demo/text", "is of transformers", "of open_clip", "models of one library")


def test_no_model_at_all(port, tmp_path):
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "README.md").write_text("hello")
    assert_refused(
        port(to=str(tmp_path / "notes")),
        "notes (local folder) is not a model that can be opened",
        "neither open_clip_config.json nor config.json",
    )


def test_a_config_of_neither_kind(port, copy):
    folder = copy("plus")
    (folder / "open_clip_config.json").write_text('{"model_cfg": {"embed_dim": 16}}')
    assert_refused(port(to=str(folder)), "own-plus", "not an open_clip CLIP", "no model_cfg with both towers")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"timm_model_name": "resnet50"}, ("timm's resnet50", "vision transformers")),
        ({"timm_model_name": "vit_base_patch16_224"}, ("do not fit its config", "text.text_projection is missing")),
        ({"layers": [1, 1, 1, 1]}, ("is not a vision transformer", "ResNet")),
        ({"attentional_pool": True}, ("attentional pooling", "not supported")),
    ],
)
def test_another_vision_tower(port, copy, change, words):
    folder = copy("plus")
    cfg = json.loads((folder / "open_clip_config.json").read_text())
    cfg["model_cfg"]["vision_cfg"] |= change
    (folder / "open_clip_config.json").write_text(json.dumps(cfg))
    assert_refused(port(to=str(folder)), "own-plus", *words)


def test_pickled_weights(port, copy):
    folder = copy("plus")
    (folder / WEIGHTS).rename(folder / "open_clip_pytorch_model.bin")
    assert_refused(port(to=str(folder)), "only pickled weights", "open_clip_pytorch_model.bin", "can run code")


def test_truncated_weights(port, copy):
    folder = copy("plus")
    (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:-100])
    assert_refused(port(to=str(folder)), WEIGHTS, "not a readable safetensors file")


def test_weights_that_do_not_fit_their_config(port, copy):
    folder = copy("plus")
    rewrite(folder, lambda tensors: tensors.update({"visual.extra": tensors.pop("visual.proj")}))
    assert_refused(port(to=str(folder)), "do not fit its config", "visual.proj is missing", "visual.extra is unknown")


def test_no_base_named(port, copy):
    folder = copy("ft")
    (folder / "README.md").write_text("---\nlicense: mit\n---\n")
    assert_refused(port(source=str(folder)), "names no base_model", "--base")


def test_base_of_other_shapes(port):
    assert_refused(
        port(base="demo/plus", to="demo/base"), "not a fine-tune of this base", "resblocks.0", "more", "--base"
    )


def test_base_that_is_another_model(port, tmp_path):
    cfg = config(32, 2, 32)
    write_model(tmp_path / "other", cfg, seed=7)
    assert_refused(port(base=str(tmp_path / "other")), "cosine", "not the base of that fine-tune", "--trust-base")


def test_base_that_is_the_fine_tune(port):
    assert_refused(port(base="demo/ft"), "are the same")


def test_a_tensor_that_nothing_accounts_for(port, copy):
    base, tuned = copy("base"), copy("ft")
    for folder in (base, tuned):
        rewrite(folder, lambda tensors: tensors.update(adapter=torch.zeros(2)))
    assert_refused(port(source=str(tuned), base=str(base)), "own-ft", "do not fit its config", "adapter is unknown")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_nan_in_the_fine_tune(port, copy, value):
    folder = copy("ft")
    key = "visual.transformer.resblocks.0.mlp.c_fc.weight"
    rewrite(folder, lambda tensors: tensors[key].view(-1)[:1].fill_(value))
    assert_refused(port(source=str(folder)), "NaN or Inf", key)


def test_nan_in_the_target(port, copy):
    folder = copy("plus")
    rewrite(folder, lambda tensors: tensors["visual.conv1.weight"].view(-1)[:1].fill_(float("nan")))
    assert_refused(port(to=str(folder)), "NaN or Inf")


def test_a_broken_target_is_not_written_either_way(port, copy, world, capsys, monkeypatch, tmp_path):
    folder = copy("plus")
    rewrite(folder, lambda tensors: tensors["token_embedding.weight"].view(-1)[-1:].fill_(float("nan")))
    assert_refused(port("--method", "naive", to=str(folder)), "NaN or Inf in token_embedding.weight")
    vector = tmp_path / "tau.safetensors"
    assert hf_bico(capsys, monkeypatch, "extract", "demo/ft", "--output", vector).code == 0
    broken = copy("base")
    rewrite(broken, lambda tensors: tensors["logit_scale"].fill_(float("inf")))
    ran = hf_bico(capsys, monkeypatch, "apply", vector, "--to", broken, "--output", tmp_path / "sum")
    assert_refused(ran, "NaN or Inf in logit_scale")
    ran = hf_bico(
        capsys, monkeypatch, "apply", vector, "--to", world / "base", "--output", tmp_path / "sum", "--alpha", "1e39"
    )
    assert_refused(ran, "NaN or Inf in")
    assert not (tmp_path / "sum").exists()


@pytest.mark.parametrize("alpha", ["nan", "inf"])
def test_no_scale(port, alpha):
    assert_refused(port("--alpha", alpha), "give a finite number")


def test_neither_scale_nor_auto(port):
    assert_refused(port("--alpha", "best"), "--alpha is a number or auto, not 'best'")


def test_draws_that_cannot_be(world, capsys, monkeypatch, tmp_path):
    words = ("port", "demo/ft", "--to", "demo/plus", "--dataset", "demo/task", "--dry-run")

    def refused(*extra, saying):
        assert_refused(hf_bico(capsys, monkeypatch, *words, *extra), *saying)

    refused("--strategy", "best", saying=("unknown strategy 'best'", "random, class-balanced, centroid-near"))
    refused("--per-class", "2", "-n", "8", saying=("--per-class and -n", "one of them"))
    refused("--per-class", "0", saying=("--per-class 0 asks for no samples",))
    refused("--per-class", "2", "--strategy", "one-class", saying=("--per-class goes with class-balanced",))
    refused("--per-class", "40", saying=("40 samples of every class", "'train'", "'circle' has"))
    refused("--strategy", "one-class", "-n", "59", saying=("59 samples asked for", "one-class (seed 0) has"))
    refused("--strategy", "half-class", "-n", "60", saying=("60 samples asked for", "half-class (seed 0) has"))
    refused("--strategy", "centroid-near", "-n", "61", saying=("61 samples asked for", "'train' has 60"))


@pytest.mark.parametrize("words", [("--create-pr",), ("--private",), ("--commit-message", "hi")])
def test_options_of_a_push_without_one(world, capsys, monkeypatch, words):
    ran = hf_bico(
        capsys, monkeypatch, "port", "demo/ft", "--to", "demo/plus", "--dataset", "demo/task", "-n", "20", *words
    )
    assert_refused(ran, "about a push", "--push")
    assert_refused(
        hf_bico(
            capsys,
            monkeypatch,
            *TINY_PORT,
            "-n",
            "20",
            "--push-to",
            "",
        ),
        "--push-to needs the name of a repo",
    )


@pytest.mark.parametrize("base", ["123", "{a: b}", "[null]"])
def test_a_base_that_is_no_name(port, copy, base):
    folder = copy("ft")
    (folder / "README.md").write_text(f"---\nbase_model: {base}\n---\n")
    assert_refused(port(source=str(folder)), "names no base_model")


def test_a_token_that_cannot_be_one(port):
    assert_refused(port("--token", "hf_ö x"), "characters that no token has")


def test_a_place_that_cannot_be(port, tmp_path):
    (tmp_path / "file").touch()
    assert_refused(port(**{"--output": str(tmp_path / "file" / "sub" / "x")}), "nothing can be written to", "--output")


def test_extract_refuses_what_port_refuses(world, capsys, monkeypatch, tmp_path):
    write_model(tmp_path / "other", config(32, 2, 32), seed=7)
    words = ("--output", tmp_path / "tau.safetensors")
    ran = hf_bico(capsys, monkeypatch, "extract", "demo/ft", "--base", tmp_path / "other", *words)
    assert_refused(ran, "not the base of that fine-tune", "cosine")
    assert_refused(hf_bico(capsys, monkeypatch, "extract", "demo/base", "--base", "demo/base", *words), "are the same")
    assert not (tmp_path / "tau.safetensors").exists()
