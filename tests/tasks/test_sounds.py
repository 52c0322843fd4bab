"""Sounds are read from files of any kind and heard as they are alone; what is said is scored as jiwer does."""

import json
from dataclasses import replace

import jiwer
import numpy as np
import pytest
import torch
from support import tokenizers_at_hand
from support.sounds import (
    KINDS,
    RATE,
    asked,
    doubled,
    ear_of,
    in_file,
    letters,
    model_of,
    rows_of,
    said,
    spoken,
    tone,
    words,
    write_rows,
)
from support.tasks import task_of
from transformers import WhisperTokenizer

from hf_bico import PortError
from hf_bico.core.collect import Side, collect
from hf_bico.core.moments import Statistics
from hf_bico.core.notes import noted
from hf_bico.core.pairing import pair_sites
from hf_bico.core.types import Signal, Wanted
from hf_bico.families import Loaded, family_of
from hf_bico.families.feeding import UNASKED
from hf_bico.families.losses import loss_of
from hf_bico.families.sounds import Ear, Sound, speak_like
from hf_bico.families.spoken import encode_spoken
from hf_bico.io.hub import Hub
from hf_bico.tasks.batches import Batches
from hf_bico.tasks.samples import Sample
from hf_bico.tasks.scores import Score, error_counts
from hf_bico.tasks.sounds import as_sound
from hf_bico.tasks.speech import Spelled
from hf_bico.tasks.splits import HubDataset
from hf_bico.tasks.views import sample_seen


@pytest.fixture(scope="module")
def worlds(tmp_path_factory):
    made = {}
    for kind in KINDS:
        root = tmp_path_factory.mktemp(kind)
        tokenizer = {"letters": lambda at=root: letters(at / "letters"), "speech": words}.get(kind, lambda: None)()
        model = model_of(kind, tokenizer.vocab_size if kind == "speech" else 7)
        folder = write_rows(root / "task", {split: rows_of(kind, split)[:12] for split in ("train", "test")})
        task, samples = task_of(folder, model)
        made[kind] = model, tokenizer, task, samples, asked(kind, model, tokenizer, task)
    return made


@pytest.mark.parametrize("kind", KINDS)
def test_loss_is_transformers_own(kind, worlds):
    model, _, _, samples, objective = worlds[kind]
    total = 0.0
    for sample in samples:
        batch = doubled(objective.encode([sample]))
        whole = dict(batch.inputs) | {"labels": batch.labels}
        own = model(**whole).loss * (int((batch.labels != UNASKED).sum()) if kind == "speech" else 1)
        assert torch.allclose(objective.loss(model, batch).double(), own.double(), rtol=1e-5)
        assert torch.allclose(loss_of(model)(model, whole).double(), own.double(), rtol=1e-5)
        total += float(own)
    if kind == "letters":  # a live batch that is padded says so in its mask; the model must be one that reads it
        model = model_of(kind, feat_extract_norm="layer")
        waves = [sample.inputs.samples for sample in samples]
        made = ear_of(kind)(waves, sampling_rate=RATE, padding=True, return_attention_mask=True, return_tensors="pt")
        inputs = {name: tensor.double() if tensor.is_floating_point() else tensor for name, tensor in made.items()}
        whole = inputs | {"labels": objective.encode(samples[:1]).labels.expand(len(samples), -1)}
        assert torch.allclose(loss_of(model)(model, whole).double(), model(**whole).loss.double(), rtol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_a_sound_is_heard_in_a_batch_as_it_is_alone(kind, worlds):
    model, tokenizer, task, samples, _ = worlds[kind]
    assert len({len(sample.inputs.samples) for sample in samples}) > 2
    target = model_of(kind, tokenizer.vocab_size if kind == "speech" else 7, seed=1)
    pairs, found = pair_sites(*(family_of(each).sites(each) for each in (model, target))), []
    objectives = [asked(kind, each.float(), tokenizer, task) for each in (model, target)]
    for size in (1, 5):
        seen = Statistics(pairs, Wanted(frozenset({Signal.INPUT, Signal.OUTPUT_GRADIENT})))
        sides = [Side(each, own.loss) for each, own in zip((model, target), objectives, strict=True)]
        found.append(collect(*sides, pairs, Batches(samples, tuple(objectives), size), seen).state_dict())
    model.double()
    for key, alone in found[0].items():
        assert torch.allclose(
            found[1][key].double(), alone.double(), rtol=1e-3, atol=1e-3 * float(alone.abs().max()) + 1e-5
        )


def test_errors_are_jiwers():
    generator = np.random.default_rng(0)
    draw = lambda: " ".join(generator.choice(["a", "bo", "cat"], generator.integers(1, 6)))  # noqa: E731
    wanted, given = ([draw() for _ in range(40)] for _ in range(2))
    counts = torch.tensor([error_counts(a, b) for a, b in zip(given, wanted, strict=True)])
    score = Score.errors(counts)
    assert score.value == pytest.approx(jiwer.wer(wanted, given))
    assert score.also["character error rate"] == pytest.approx(jiwer.cer(wanted, given))
    assert score.low < score.value < score.high
    assert error_counts("a b", "a b") == (0, 2, 0, 3) and error_counts("", "a b") == (2, 2, 3, 3)


class Right(Spelled):
    """Answers with frames that spell what is said, a pause behind every letter."""

    def likeliest(self, model, batch):
        letters = batch.labels.clamp_min(0)
        return torch.stack([letters, torch.zeros_like(letters)], dim=-1).flatten(1)


def test_right_letters_have_no_errors(worlds):
    _, _, _, samples, objective = worlds["letters"]
    right = Right(objective.side, objective.max_length)
    for number, sample in enumerate(samples):
        batch = right.encode([sample])
        assert batch.notes == [said(number)]
        assert right.score(right.per_sample(None, batch)).value == 0


def test_the_decoder_writes_what_is_likeliest(worlds):
    model, _, _, samples, objective = worlds["speech"]
    batch = doubled(objective.encode(samples[:2]))
    found, ids = objective.generated(model, batch), torch.zeros(2, 1, dtype=torch.long)
    for _ in range(found.shape[1]):
        logits = model(**batch.inputs, decoder_input_ids=ids).logits[:, -1]
        ids = torch.cat([ids, logits.argmax(-1, keepdim=True)], dim=1)
    for row, own in zip(found.tolist(), ids[:, 1:].tolist(), strict=True):
        end = own.index(1) if 1 in own else len(own)
        assert row[:end] == own[:end]


@pytest.mark.parametrize("kind", ["WAV", "FLAC", "OGG"])
def test_files_of_any_kind_rate_and_channels_are_heard_alike(kind):
    wave = spoken(3)
    stereo = np.stack([1.5 * wave, 0.5 * wave], axis=1) / 2
    double = np.repeat(stereo, 2, axis=0)
    sound = as_sound(0, {"bytes": in_file(double, kind, 2 * RATE), "path": None})
    with noted() as notes:
        heard = sound.at(RATE)
    assert notes == [f"sounds of {2 * RATE} Hz are resampled to the {RATE} Hz that the models take"]
    middle = slice(200, -200)
    assert np.corrcoef(heard[: len(wave)][middle], wave[: len(heard)][middle])[0, 1] > 0.97
    assert np.abs(heard).max() < 0.8


GARBAGE = b"this is no sound at all" * 9


UNREAD = {
    "no row": (None, "row 7 has no sound"),
    "no file": ({"bytes": None, "path": None}, "row 7 has no sound"),
    "garbage": ({"bytes": GARBAGE, "path": None}, "the sound of row 7 cannot be read: .*ormat"),
    "lost": ({"bytes": None, "path": "/nowhere/a.wav"}, "the sound of row 7 cannot be read: .*No such file"),
    "cut off": ({"bytes": in_file(tone(0))[:2000], "path": None}, "the sound of row 7 cannot be read: .*is truncated"),
    "cut off FLAC": ({"bytes": in_file(tone(0), "FLAC")[:900], "path": None}, "the sound of row 7 cannot be read"),
    "empty": ({"bytes": in_file(tone(0)[:0]), "path": None}, "the sound of row 7 is empty"),
}


@pytest.mark.parametrize("what", UNREAD)
def test_sounds_that_cannot_be_read_are_refused_with_their_row(what):
    value, why = UNREAD[what]
    with pytest.raises(PortError, match=why) as caught:
        as_sound(7, value)
    assert "\n" not in str(caught.value)


def test_folders_of_sounds_are_read(tmp_path):
    for split in ("train", "test"):
        (tmp_path / split).mkdir()
        lines = []
        for number in range(3):
            (tmp_path / split / f"{number}.wav").write_bytes(in_file(spoken(number)))
            lines.append(json.dumps({"file_name": f"{number}.wav", "text": said(number)}))
        (tmp_path / split / "metadata.jsonl").write_text("\n".join(lines))
    hub = Hub()
    for streaming in (False, True):
        split = HubDataset(hub, hub.resolve(str(tmp_path), "dataset"), streaming=streaming).split("train")
        rows = list(split.rows([2, 0], list(split.features)))
        assert [row["text"] for row in rows] == [said(2), said(0)]
        assert np.allclose(as_sound(0, rows[1]["audio"]).samples, spoken(0), atol=1e-3)


def test_what_a_sound_cannot_say_is_refused(worlds):
    _, _, _, samples, objective = worlds["letters"]
    short = Sound(samples[0].inputs.samples[:1300], RATE)
    with pytest.raises(PortError, match="has a sound of 10 frames, too short for the 11 that its transcription 'bb b"):
        objective.encode([Sample(short, "bb bb bb")])
    with pytest.raises(PortError, match=r"the transcription 'ABBA', whose letters the model's vocabulary \(ab …\)"):
        objective.encode([replace(samples[0], label="ABBA")])
    with pytest.raises(PortError, match="asked about texts or images"):
        objective.encode([replace(samples[0], inputs="a text")])


def test_long_sounds_are_cut_where_the_model_ends_and_that_is_said(worlds):
    _, _, _, samples, objective = worlds["speech"]
    assert objective.side.ear.fixed and not worlds["letters"][-1].side.ear.fixed
    long = Sound(np.tile(samples[0].inputs.samples, 40), RATE)
    with noted() as notes:
        assert objective.encode([replace(samples[0], inputs=long)]).inputs["input_features"].shape == (1, 8, 100)
    assert notes == ["sounds are cut at 1 s: a model hears no more"]


def test_a_view_of_a_sound_is_another_of_its_length():
    sample = Sample(Sound(tone(1), RATE), 1)
    a, b, again = (sample_seen(sample, seed).inputs.samples for seed in (1, 2, 1))
    assert np.array_equal(a, again) and not np.array_equal(a, b)
    assert np.corrcoef(a, tone(1))[0, 1] > 0.99 and a.dtype == np.float32


def whisper_words(**said) -> WhisperTokenizer:
    spec = json.loads(tokenizers_at_hand.byte_bpe().backend_tokenizer.to_str())["model"]
    names = ["endoftext", "startoftranscript", "en", "zh", "translate", "transcribe", "notimestamps"]
    special = [f"<|{name}|>" for name in names]
    vocabulary = spec["vocab"] | {name: len(spec["vocab"]) + k for k, name in enumerate(special)}
    made = WhisperTokenizer(vocab=vocabulary, merges=[tuple(pair) for pair in spec["merges"]], **said)
    made.add_special_tokens({"additional_special_tokens": special})
    return made


def test_every_model_is_asked_in_the_fine_tunes_language():
    tuned, own = whisper_words(language="chinese", task="transcribe"), whisper_words(language="english")
    with noted() as notes:
        own = speak_like(own, tuned)
    assert "language chinese, task transcribe" in notes[0]
    start, end = own.prefix_tokens[0], own.eos_token_id
    model = model_of("speech", len(own), decoder_start_token_id=start, eos_token_id=end, pad_token_id=end)
    encoded = encode_spoken(Loaded(model, None, own), own, ["ab a", "b"], 64, {})
    before = [own.convert_ids_to_tokens(row) for row in encoded.notes]
    assert before == [["<|zh|>", "<|transcribe|>", "<|notimestamps|>"]] * 2
    assert speak_like(own, None).language == "chinese"  # an adapter's repo may have no tokenizer
    with pytest.raises(PortError, match="nothing left to write in its first 5 tokens"):
        encode_spoken(Loaded(model, None, own), own, ["ab a"], 5, {})
    labels = encoded.labels[0][encoded.labels[0] != UNASKED].tolist()
    assert own.decode(labels, skip_special_tokens=True) == "ab a" and labels[-1] == end and start not in labels
    assert (encoded.spans["labels"].mask == (encoded.labels != UNASKED)).all()
    plain = whisper_words()
    assert speak_like(own, plain).prefix_tokens == plain.prefix_tokens


def test_an_ear_says_what_it_hears():
    assert Ear(ear_of("speech")).hear([Sound(tone(0), RATE), Sound(tone(1), RATE)])["input_features"].shape[0] == 2
