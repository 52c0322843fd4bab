"""The code on the card of a live port was run, on the very files beside it, and says what it was asked."""

import contextlib
import io
import re

import pytest
import torch
import transformers
from huggingface_hub import HfApi, hf_hub_download
from PIL import Image
from support.ports import clip_port
from support.repos import batch, processor_of, write_family

from hf_bico import Naive, port
from hf_bico.workflows import used

CLASSES = {
    "bert": ("text", transformers.AutoModelForSequenceClassification),
    "vit": ("image", transformers.AutoModelForImageClassification),
    "llama": ("causal", transformers.AutoModelForCausalLM),
}


@pytest.fixture(scope="module", params=CLASSES)
def family(request, tmp_path_factory):
    """A live port between models that were opened from folders."""
    root, (kind, cls) = tmp_path_factory.mktemp(request.param), CLASSES[request.param]
    write_family(root, request.param)
    inputs, labels = batch(kind, processor_of(kind))
    tuned = cls.from_pretrained(root / "ft")
    more = {} if kind == "causal" else {"num_labels": tuned.num_labels}
    base, target = (cls.from_pretrained(root / part, **more) for part in ("base", "plus"))
    samples = [inputs | {"labels": labels}]
    return request.param, port(tuned=tuned, base=base, target=target, calibration=samples, method=Naive())


def shown(text: str) -> list[tuple[str, str, str]]:
    """The programs of a card, each with what is said of it and what it printed."""
    found = re.findall(r"```python\n(.*?)```\n+(?:([^\n]+)\n+```text\n(.*?)\n```)?", text, re.DOTALL)
    return [each for each in found if "hf_bico.compare" not in each[0]]


def run(code: str) -> str:
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(code, {})
    return printed.getvalue().strip()


def test_a_reader_sees_what_the_card_says(family, tmp_path, monkeypatch):
    name, ported = family
    folder = ported.save_pretrained(tmp_path / "out")
    ((code, says, output),) = shown((folder / "README.md").read_text())
    monkeypatch.chdir(folder)
    if name == "vit":
        assert says == "printed, when this card was made, for a grey picture:"
        Image.new("RGB", (256, 256), "grey").save("picture.png")
    else:
        assert says == "printed, when this card was made:"
    assert output and run(code) == output


def test_a_change_is_opened_with_its_base(family, tmp_path):
    text = (family[1].save_pretrained(tmp_path / "out", form="delta") / "README.md").read_text()
    (code, _, output), *others = shown(text)
    assert "hf_bico.from_pretrained" in code and output and not others
    assert "could not be run" not in text


def test_a_large_model_is_not_opened_once_more(family, tmp_path, monkeypatch):
    monkeypatch.setattr(used, "MOST_OPENED", 10)
    ((code, says, output),) = shown((family[1].save_pretrained(tmp_path / "out") / "README.md").read_text())
    assert code and not says and not output


def test_what_prepares_inputs_is_not_made_up(tmp_path):
    """Without a tokenizer the model is opened, and asked nothing."""
    config = transformers.BertConfig(vocab_size=30, hidden_size=16, num_hidden_layers=1, num_attention_heads=2)
    torch.manual_seed(0)
    base, tuned, target = (transformers.BertForSequenceClassification(config) for _ in range(3))
    ids = torch.arange(24).reshape(4, 6)
    samples = [{"input_ids": ids, "labels": torch.tensor([0, 1, 0, 1])}]
    ported = port(tuned=tuned, base=base, target=target, calibration=samples, method=Naive(), trust_base=True)
    text = (ported.save_pretrained(tmp_path / "out") / "README.md").read_text()
    assert "BertForSequenceClassification.from_pretrained" in text and "pipeline(" not in text
    assert "It ran when this card was made." in text


def test_a_state_dict_on_the_hub_is_read_as_it_will_be(hub):
    ported = clip_port()
    ported.push_to_hub("demo/live-code")
    with open(hf_hub_download("demo/live-code", "README.md"), encoding="utf-8") as card:
        ((code, says, output),) = shown(card.read())
    assert "hf_hub_download" in code and says == "printed, when this card was made:"
    assert run(code) == output == f"{len(ported.target.state_dict())} tensors"
    HfApi().delete_repo("demo/live-code")
