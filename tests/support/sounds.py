"""Tiny models of sound, and datasets of tones that say something: a base, its fine-tune, and the base's twin."""

import io
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import soundfile
import torch
import transformers
from support import tokenizers_at_hand
from support.family_twins import gradient_step, twin
from support.repos import _scale
from support.tasks import task_of
from torch import nn

from hf_bico.families import Loaded, Transformers
from hf_bico.families.feeding import Encoded
from hf_bico.families.purposes import of_config
from hf_bico.families.sounds import Ear
from hf_bico.tasks.asked import objective_of
from hf_bico.tasks.batches import batched
from hf_bico.tasks.objectives import Objective
from hf_bico.tasks.samples import Task

ROWS = {"train": 36, "test": 12}
RATE, TONES = 16_000, ("low", "middle", "high")
WORDS = ("ab", "ba", "a", "bab")
WIDTH = 24
WAVE = {
    "hidden_size": WIDTH,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 20,
    "conv_dim": (12, 12),
    "conv_kernel": (20, 8),
    "conv_stride": (16, 8),
    "num_conv_pos_embeddings": 4,
    "num_conv_pos_embedding_groups": 1,
    "classifier_proj_size": WIDTH,
    "mask_time_prob": 0.0,
}
"""A frame of 128 samples."""
SIDES = {f"{side}_{what}": n for side in ("encoder", "decoder") for what, n in (("layers", 2), ("ffn_dim", 20))}
WHISPER = {
    "d_model": WIDTH,
    "encoder_attention_heads": 3,
    "decoder_attention_heads": 3,
    "max_source_positions": 50,
    "max_target_positions": 20,
    "num_mel_bins": 8,
    **SIDES,
}


@dataclass(frozen=True)
class Kind:
    """A kind of task: a model's class, and the column of what its sounds are answered with."""

    cls: str
    answer: str
    metric: str


KINDS = {
    "classes": Kind("Wav2Vec2ForSequenceClassification", "label", "accuracy"),
    "letters": Kind("Wav2Vec2ForCTC", "text", "word error rate"),
    "speech": Kind("WhisperForConditionalGeneration", "sentence", "word error rate"),
}


def tone(number: int, seconds: float = 0.15) -> np.ndarray:
    """A tone whose height says a class, with noise."""
    generator = np.random.default_rng(number)
    times = np.arange(int(RATE * (seconds + 0.01 * (number % 4)))) / RATE
    wave = np.sin(2 * np.pi * (300 + 900 * (number % len(TONES))) * times * (1 + 0.1 * generator.random()))
    return (0.5 * wave + 0.05 * generator.normal(size=len(times))).astype(np.float32)


def said(number: int) -> str:
    return " ".join(WORDS[(number * (k + 3)) % len(WORDS)] for k in range(1 + number % 2))


def spoken(number: int) -> np.ndarray:
    """Every letter is a short tone of its own."""
    heights = {"a": 400, "b": 1500, " ": 0}
    parts = [np.sin(2 * np.pi * heights[letter] * np.arange(700) / RATE) for letter in f"{said(number)} "]
    noise = 0.05 * np.random.default_rng(number).normal(size=700 * len(parts))
    return (0.5 * np.concatenate(parts) + noise).astype(np.float32)


def in_file(wave: np.ndarray, kind: str = "WAV", rate: int = RATE) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, wave, rate, format=kind)
    return file.getvalue()


def rows_of(kind: str, split: str) -> list[dict[str, Any]]:
    numbers = range(ROWS[split]) if split == "train" else range(1000, 1000 + ROWS[split])
    if kind == "classes":
        return [{"audio": in_file(tone(n)), "label": n % len(TONES)} for n in numbers]
    return [{"audio": in_file(spoken(n), "FLAC"), KINDS[kind].answer: said(n)} for n in numbers]


def write_rows(folder: Path, rows: dict[str, list[dict[str, Any]]]) -> Path:
    """Write rows in parquet as `datasets` does, whose own writer of sounds needs another library."""
    types = {"audio": datasets.Audio(), "label": datasets.ClassLabel(names=list(TONES))}
    (folder / "data").mkdir(parents=True, exist_ok=True)
    for split, some in rows.items():
        features = datasets.Features({name: types.get(name, datasets.Value("string")) for name in some[0]})
        files = [row | {"audio": {"bytes": row["audio"], "path": "a.wav"}} if row.get("audio") else row for row in some]
        table = pa.Table.from_pylist(files, schema=features.arrow_schema)
        pq.write_table(table, folder / "data" / f"{split}-00000-of-00001.parquet")
    return folder


def letters(folder: Path) -> Any:
    """A tokenizer of wav2vec2's kind."""
    vocabulary = {"<pad>": 0, "<s>": 1, "</s>": 2, "<unk>": 3, "|": 4, "a": 5, "b": 6}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    return transformers.Wav2Vec2CTCTokenizer(str(folder / "vocab.json"))


def ear_of(kind: str) -> Any:
    if kind != "speech":
        return transformers.Wav2Vec2FeatureExtractor(feature_size=1, sampling_rate=RATE)
    return transformers.WhisperFeatureExtractor(feature_size=8, chunk_length=1, n_fft=400, hop_length=160)


def words() -> Any:
    return tokenizers_at_hand.unigram()


def model_of(kind: str, vocabulary: int = 7, *, seed: int = 0, **options: Any) -> nn.Module:
    """A tiny random model of a kind, in float64."""
    torch.manual_seed(seed)
    named = {"id2label": dict(enumerate(TONES)), "label2id": {name: k for k, name in enumerate(TONES)}}
    if kind == "speech":
        special = {"pad_token_id": 0, "bos_token_id": 0, "eos_token_id": 1, "decoder_start_token_id": 0}
        config: Any = transformers.WhisperConfig(**(WHISPER | special | options), vocab_size=vocabulary)
    else:
        config = transformers.Wav2Vec2Config(**(WAVE | named | options), vocab_size=vocabulary)
    model = getattr(transformers, KINDS[kind].cls)(config).double().eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1 and "conv" not in name and "embed_positions" not in name:
                parameter.normal_(std=1.0 if "embed" in name else 1.5 * parameter.shape[-1] ** -0.5)
    return model


def asked(kind: str, model: nn.Module, tokenizer: Any, task: Task) -> Objective:
    """What a live model is asked."""
    purpose = of_config(model.config, type(model).__name__)
    side = Loaded(model, None, tokenizer, ear=Ear(ear_of(kind)))
    return objective_of(side, Transformers(), purpose, task, 64, text_moves=False)


def write_world(root: Path, kind: str) -> Path:
    """Write `base`, without its head but for Whisper, `ft`, `plus`, the base's twin, and `task`."""
    tokenizer = {"letters": lambda: letters(root / "ft"), "speech": words}.get(kind, lambda: None)()
    model = model_of(kind, tokenizer.vocab_size if kind == "speech" else 7)
    task, samples = task_of(write_rows(root / "task", {split: rows_of(kind, split) for split in ROWS}), model)
    objective = asked(kind, model, tokenizer, task)
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    batches = [doubled(objective.encode(some)) for some in batched(samples, 16, objective)]
    stepped = gradient_step(model, lambda m, all_: sum(objective.loss(m, each) for each in all_), batches, step=1.0)
    change = {key: stepped[key] - tensor for key, tensor in before.items()}
    scale = _scale(before, change)
    other = twin(model)
    for folder, each in (("base", model), ("plus", other)):
        (each if kind == "speech" else each.wav2vec2).float().save_pretrained(root / folder)
        each.double()
    model.load_state_dict({key: tensor + scale * change[key] for key, tensor in before.items()})
    model.float().save_pretrained(root / "ft")
    for folder in ("base", "ft", "plus"):
        ear_of(kind).save_pretrained(root / folder)
        if kind == "speech" or (kind == "letters" and folder == "ft"):
            tokenizer.save_pretrained(root / folder)
    return root


def doubled(batch: Encoded) -> Encoded:
    return replace(batch, inputs={name: tensor.double() for name, tensor in batch.inputs.items()})
