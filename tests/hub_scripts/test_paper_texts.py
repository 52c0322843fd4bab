"""The papers' tables of texts: a run against the local Hub gives `compare`'s numbers."""

from pathlib import Path

import datasets
import numpy as np
import pytest
import torch
from huggingface_hub import HfApi
from support.papers import TEXTS, cells, run, tuned, written

from hf_bico.core.collect import Batch
from hf_bico.core.compare import compare
from hf_bico.core.methods import METHODS
from hf_bico.tasks.strategies import chosen
from hf_bico.workflows.live import job_of
from hub_scripts import paper_tables

pytestmark = pytest.mark.usefixtures("one_thread")

# Texts.


@pytest.fixture(scope="module")
def texts(hub, tmp_path_factory):
    pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("texts")
    for name, width, seed in (("t5-wide", 24, 0), ("t5-slim", 16, 1)):
        write_encoder(folder / name, width, seed)
    write_texts(folder / "words")
    for name, kind in (("t5-wide", "model"), ("t5-slim", "model"), ("words", "dataset")):
        HfApi().create_repo(f"demo/{name}", repo_type=kind)
        HfApi().upload_folder(folder_path=folder / name, repo_id=f"demo/{name}", repo_type=kind)
    code, said = run(written(folder, TEXTS), "--output", folder / "out", "--device", "cpu", "--batch-size", 8)
    assert code == 0, said
    return folder


def write_encoder(folder: Path, width: int, seed: int) -> None:
    """A random whole T5, decoder and all, with a tokenizer of twenty words."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast, T5Config, T5ForConditionalGeneration

    torch.manual_seed(seed)
    words = Tokenizer(models.WordLevel({"<pad>": 0, "</s>": 1, "?": 2} | {f"w{i}": i + 3 for i in range(20)}, "?"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.post_processor = processors.TemplateProcessing(
        single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", 1)]
    )
    config = T5Config(
        vocab_size=23,
        d_model=width,
        d_kv=4,
        num_heads=width // 8,
        d_ff=20,
        num_layers=2,
        num_decoder_layers=1,
        dropout_rate=0.0,
        decoder_start_token_id=0,
    )
    T5ForConditionalGeneration(config).save_pretrained(folder)
    PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", eos_token="</s>", unk_token="?").save_pretrained(
        folder
    )


def write_texts(folder: Path) -> None:
    """Pairs of short texts; whether both begin alike is the label, some have none."""
    (folder / "data").mkdir(parents=True)
    names = datasets.ClassLabel(names=["differ", "alike"])
    for seed, (split, n) in enumerate({"train": 80, "validation": 40}.items()):
        generator = np.random.default_rng(seed)
        rows = {"first": [], "second": [], "label": []}
        for row in range(n):
            first = [f"w{i}" for i in generator.integers(20, size=generator.integers(2, 5))]
            label = int(generator.integers(2))
            rows["first"].append(" ".join(first))
            rows["second"].append(f"{first[0] if label else 'w0'} w{row % 20}")
            rows["label"].append(label if row % 20 else -1)
        table = datasets.Dataset.from_dict(
            rows,
            features=datasets.Features(first=datasets.Value("string"), second=datasets.Value("string"), label=names),
        )
        table.to_parquet(folder / "data" / f"{split}-00000-of-00001.parquet")
    (folder / "README.md").write_text("---\nlicense: mit\n---\n")


def test_text_cells_are_those_of_compare(texts):
    """One text a batch, so that none is ever padded or grouped."""
    from transformers import AutoTokenizer, T5EncoderModel

    from hub_scripts.world.text.probe import features, fit_probe, probe_loss

    def encoder(folder):
        return T5EncoderModel.from_pretrained(folder).eval().requires_grad_(False)

    words = AutoTokenizer.from_pretrained(texts / "t5-slim")
    data = {
        split: [
            (torch.tensor([words(row["first"], row["second"])["input_ids"]]), torch.tensor([row["label"]]))
            for row in datasets.Dataset.from_parquet(str(path))
            if row["label"] >= 0
        ]
        for split, path in ((path.name.split("-")[0], path) for path in (texts / "words" / "data").iterdir())
    }
    assert [len(data[split]) for split in ("train", "validation")] == [76, 38]

    def probe(model, few):
        return fit_probe(torch.cat([features(model, ids) for ids, _ in few]), torch.cat([y for _, y in few]), 2)

    base, target, fine = map(encoder, (texts / "t5-wide", texts / "t5-slim", tuned(texts / "out", "wide")))
    expected = {}
    for n in (10, 20):
        few = [data["train"][row] for row in chosen([0] * 76, "random", n, 0)]

        def score(model, few=few):
            weight, bias = probe(model, few)
            right = [(features(model, ids) @ weight.T + bias).argmax(1) == y for ids, y in data["validation"]]
            return torch.cat(right).float().mean().item()

        job = job_of(
            tuned=fine,
            base=base,
            target=target,
            calibration=[Batch(each, each) for each in few],
            loss=tuple(probe_loss(*probe(model, few)) for model in (base, target)),
        )
        methods = {name: METHODS[name]() for name in ("naive", "bico")}
        expected |= {(n, row.method): row.score for row in compare(job, methods, n, score)}
        for what, folder in (("zero-shot", texts / "t5-slim"), ("fine-tuned target", tuned(texts / "out", "slim"))):
            assert cells(texts / "out", what)[n, "bico"] == pytest.approx(score(encoder(folder)))
    assert cells(texts / "out") == pytest.approx(expected)


def test_text_fine_tunes_leave_the_token_table(texts):
    from transformers import T5EncoderModel

    for name in ("wide", "slim"):
        before, after = (
            T5EncoderModel.from_pretrained(folder).state_dict()
            for folder in (texts / f"t5-{name}", tuned(texts / "out", name))
        )
        assert torch.equal(before["shared.weight"], after["shared.weight"])
        changed = [key for key in before if not torch.equal(before[key], after[key])]
        assert len(changed) > 10


def test_second_start_of_texts_does_nothing_anew(texts, monkeypatch):
    before = (texts / "out" / "cells.jsonl").read_bytes()
    monkeypatch.setattr(paper_tables, "kind_of", lambda family: pytest.fail("nothing is left to do"))
    assert run(texts / "tables.yaml", "--output", texts / "out", "--device", "cpu")[0] == 0
    assert (texts / "out" / "cells.jsonl").read_bytes() == before
