"""What comes from outside is read within bounds, and refused in one line that names file, key and what is right."""

import json
import shutil
from itertools import pairwise

import pytest
import torch
from safetensors.torch import save_file
from support.commands import assert_refused, hf_bico
from support.refusals import WEIGHTS

from hf_bico import PortError
from hf_bico.io import outside
from hf_bico.io.bounds import require_sound, within
from hf_bico.io.cards import card_of
from hf_bico.io.checkpoints import SafeTensors
from hf_bico.io.hub import Hub
from hf_bico.io.outside import parse_json, parse_object, parse_yaml

NAMES = "abcdefghijkl"
BOMB = "a: &a [x, x]\n" + "".join(f"{b}: &{b} [*{a}, *{a}, *{a}, *{a}]\n" for a, b in pairwise(NAMES))


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("{", "no JSON in UTF-8"),
        ("\udcff", "no JSON in UTF-8"),
        ("[" * 100_000 + "]" * 100_000, "nested too deeply"),
        pytest.param("[" * 150 + "]" * 150, "nested too deeply", id="deep"),
        pytest.param('{"a": {"b": NaN}}', "a.b is nan, where a finite number belongs", id="nan"),
        ('{"a": [1, -Infinity]}', "a.1 is -inf"),
        ('{"a": 1e999}', "a is inf"),
        (f'{{"a": {10**40}}}', "a is a number of too many digits"),
        ('{"a": ' + "9" * 5000 + "}", "no JSON"),
        (r'{"a": "\ud800"}', "a is a text with half a character"),
        (r'{"\udfff": 1}', "half a character"),
        ("[]", "is a list, where a JSON object"),
    ],
)
def test_json_that_is_refused(text, why):
    with pytest.raises(PortError, match=r"x\.json") as refused:
        parse_object(text.encode("utf-8", "surrogateescape"), "x.json")
    assert why in str(refused.value)
    assert "\n" not in str(refused.value)


def test_json_that_real_repos_have():
    said = {"model_max_length": 10**30, "time_step_limit": [0.0, float("inf")], "é": "\U0001f600"}
    assert parse_json(json.dumps(said).encode(), "x.json") == said


def test_json_of_too_many_bytes_or_values(monkeypatch):
    monkeypatch.setattr(outside, "PARTS", 3)
    with pytest.raises(PortError, match="too many values"):
        parse_json(b"[1, 2, 3, 4]", "x.json")
    monkeypatch.setattr(outside, "BYTES", 3)
    with pytest.raises(PortError, match="12 bytes"):
        parse_json(b"[1, 2, 3, 4]", "x.json")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        pytest.param(BOMB, "too large with its aliases", id="bomb"),
        ("a: &a [*a]", "stands for nothing"),
        ("[" * 200 + "]" * 200, "nested too deeply"),
        ("[" * 50_000, "nested too deeply"),
        ("a: [", "no readable YAML"),
        ("a: !!python/object:os.system x", "no readable YAML"),
        ("a: " + "9" * 5000, "no readable YAML"),
        pytest.param('a: "\\uD800"', "half a character", id="half"),
        ("? {a: b}\n: c", "no readable YAML"),
    ],
)
def test_yaml_that_is_refused(text, why):
    with pytest.raises(PortError, match=why) as refused:
        parse_yaml(text, "the plan")
    assert "\n" not in str(refused.value)


def test_yaml_with_aliases_that_are_few():
    assert parse_yaml("a: &x [1, 2]\nb: *x", "the plan") == {"a": [1, 2], "b": [1, 2]}


@pytest.mark.parametrize("text", ["ignore_metadata_errors: true", "1: 2", "model-index: 3", "eval_results: [a]"])
def test_cards_with_keys_of_all_kinds(text):
    assert card_of(f"---\n{text}\nlicense: mit\nbase_model: a/b\n---\n", "it")[:2] == ("a/b", "mit")


def test_a_card_that_is_a_list():
    with pytest.raises(PortError, match="the header of it is a list"):
        card_of("---\n- a\n---\n", "it")


SIZES = {
    "zero": ({"hidden_size": 0}, "hidden_size is 0, where a whole number of at least 1"),
    "text": ({"vision_cfg": {"width": "x"}}, "vision_cfg.width is 'x'"),
    "true": ({"num_hidden_layers": True}, "num_hidden_layers is True"),
    "list": ({"text_cfg": []}, "text_cfg is a list, where an object"),
    "null patch": ({"patch_size": [8, 0]}, "patch_size is"),
    "layers": ({"num_hidden_layers": 10**6}, "num_hidden_layers is 1000000, and its weights have 40 tensors"),
    "experts": ({"num_experts": 10**9}, "the config is of another model"),
    "endless": ({"hidden_size": 10**30}, "no size of a model"),
    "means": ({"preprocess_cfg": {"mean": [1, 2]}}, "preprocess_cfg.mean is"),
    "no spread": ({"image_std": [0.5, 0.0, 0.5]}, "image_std is"),
    "epsilon": ({"rms_norm_eps": -1.0}, "rms_norm_eps is -1.0, where a small number"),
}


@pytest.mark.parametrize(("config", "why"), SIZES.values(), ids=SIZES)
def test_configs_that_cannot_be(config, why):
    with pytest.raises(PortError, match=r"config\.json: ") as refused:
        require_sound(config, "config.json", 40)
    assert why in str(refused.value)


def test_configs_that_real_repos_have():
    said = {"hidden_size": 4096, "head_dim": None, "max_window_layers": 80, "patch_size": [2, 14, 14], "num_experts": 0}
    require_sound(said | {"image_mean": 0.5, "max_position_embeddings": 10_485_760}, "config.json", 40)


def test_a_model_far_larger_than_its_weights_is_not_built():
    stored = {"weight": torch.empty(2, 2)}
    with pytest.raises(PortError, match="many times as large"), within(stored), torch.device("meta"):
        torch.nn.Linear(10**6, 10**6)
    with pytest.raises(PortError, match="many times as large"), within(stored), torch.device("meta"):
        torch.nn.ModuleList(torch.nn.Identity() for _ in range(10**5))
    with within(stored):
        torch.nn.Linear(1000, 1000)


@pytest.mark.parametrize("role", ["to", "source"])
@pytest.mark.parametrize("sizes", [{"layers": 10**6}, {"width": 10**6}, {"layers": 10**9}])
def test_a_config_of_a_million(port, copy, sizes, role):
    folder = copy("plus" if role == "to" else "ft")
    place = folder / "open_clip_config.json"
    said = json.loads(place.read_text())
    said["model_cfg"]["vision_cfg"] |= sizes
    place.write_text(json.dumps(said))
    assert_refused(port(**{role: str(folder)}), folder.name)


def test_a_config_that_is_nested_deeply(port, copy):
    folder = copy("plus")
    (folder / "open_clip_config.json").write_text('{"model_cfg": ' + "[" * 10**5 + "]" * 10**5 + "}")
    assert_refused(port(to=str(folder)), "own-plus", "open_clip_config.json is nested too deeply")


def test_a_bomb_in_a_card(port, copy):
    folder = copy("ft")
    (folder / "README.md").write_text(f"---\n{BOMB}base_model: demo/base\n---\n")
    assert_refused(port(source=str(folder)), "the card of own-ft", "too large with its aliases")


FLOATS = ("float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz", "float8_e8m0fnu")


@pytest.mark.parametrize("kind", FLOATS)
def test_floats_of_8_bits_are_widened(kind, tmp_path):
    narrow = torch.tensor([[1.0, 2.0], [4.0, 0.5]]).to(getattr(torch, kind))
    save_file({"x": narrow}, tmp_path / "x.safetensors")
    found = SafeTensors(tmp_path / "x.safetensors")["x"]
    assert found.dtype == torch.float32
    assert torch.equal(found, narrow.float())


def test_dtypes_that_torch_lacks_are_named(tmp_path):
    for dtype, size in (("F4", 1), ("F6_E2M3", 3)):
        header = {"x": {"dtype": dtype, "shape": [2 if size == 1 else 4], "data_offsets": [0, size]}}
        raw = json.dumps(header).encode()
        place = tmp_path / f"{dtype}.safetensors"
        place.write_bytes(len(raw).to_bytes(8, "little") + raw + bytes(size))
        with pytest.raises(PortError, match=f"{place.name}: x is {dtype}, a dtype that torch cannot read"):
            SafeTensors(place)


def test_a_fine_tune_of_8_bit_floats_is_extracted(world, tmp_path, capsys, monkeypatch):
    for name in ("ft", "base"):
        shutil.copytree(world / name, tmp_path / name)
        tensors = SafeTensors(tmp_path / name / WEIGHTS)
        narrow = {k: t.to(torch.float8_e4m3fn) if t.ndim == 2 else t for k, t in tensors.items()}
        save_file(narrow, tmp_path / name / WEIGHTS)
    words = ("--base", tmp_path / "base", "--output", tmp_path / "tau.safetensors")
    ran = hf_bico(capsys, monkeypatch, "extract", tmp_path / "ft", *words)
    assert ran.code == 0, ran.err
    a, b = (SafeTensors(tmp_path / name / WEIGHTS) for name in ("ft", "base"))
    for key, tau in SafeTensors(tmp_path / "tau.safetensors").items():
        assert torch.equal(tau, a[key] - b[key]), key


def test_the_gate_looks_at_a_file_again_when_it_has_changed(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    hub = Hub()
    hub.fetch(hub.resolve(str(tmp_path)), ("config.json",))
    (tmp_path / "config.json").write_text("{,")
    with pytest.raises(PortError, match="no JSON"):
        hub.fetch(hub.resolve(str(tmp_path)), ("config.json",))
