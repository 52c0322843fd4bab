"""Python that asks a port one sample: its own library's way, and that of hf_bico for a change of a base."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hf_bico.families import PurposeKind
from hf_bico.reports.opening import SENTENCES, Opening

PICTURE, SOUND = "picture.png", "sound.wav"
"""What files of the reader's are called in code."""
WHERE = "where the base lies"
"""What a base that is a folder is called in code."""
MOST = 20
"""The most classes that are written out."""
SAMPLE = "The weather was fine, and the train was on time."
"""What a model is asked where the dataset's own texts are nobody's business."""


@dataclass(frozen=True)
class Shown:
    """A sample as code shows it."""

    texts: tuple[str, ...] = ()
    """One, or a pair; the question and the text of one that is looked through."""
    classes: tuple[str, ...] = ()
    """Those of a zero-shot task."""
    template: str = "a photo of a {}."


CALLS: Mapping[PurposeKind, tuple[str, str]] = {
    PurposeKind.IMAGE_CLASSES: ("image-classification", f'Image.open("{PICTURE}")'),
    PurposeKind.TEXT_CLASSES: ("text-classification", "{text}"),
    PurposeKind.TOKEN_CLASSES: ("token-classification", "{text}"),
    PurposeKind.CAUSAL_LM: ("text-generation", "{text}, max_new_tokens=20, do_sample=False"),
    PurposeKind.SOUND_CLASSES: ("audio-classification", '{"raw": samples, "sampling_rate": rate}'),
    PurposeKind.CTC: ("automatic-speech-recognition", '{"raw": samples, "sampling_rate": rate}'),
    PurposeKind.SPEECH: (
        "automatic-speech-recognition",
        '{"raw": samples, "sampling_rate": rate}, '
        'generate_kwargs={"max_new_tokens": (pipe.model.generation_config.max_length or 32) // 2}',
    ),
}
"""What a transformers pipeline takes: its task, and how a sample goes in."""
FEEDS: Mapping[PurposeKind, str] = {
    PurposeKind.IMAGE_CLASSES: "image_processor=preprocess",
    PurposeKind.SOUND_CLASSES: "feature_extractor=preprocess",
}
"""How a pipeline is given what prepares its inputs, where that is no tokenizer."""


def usage(opening: Opening, shown: Shown, *, whole: bool, pinned: bool) -> list[str]:
    """Return ways to use a port, each a program that prints an answer where that takes a few lines.

    Args:
        whole: whether a whole model was written, not a change of one.
        pinned: whether that change's base has a commit on the Hub; else it is a folder.
    """
    *stock, load = loads(opening, whole=whole, pinned=pinned)
    if whole:
        return [_program(opening, shown, load, f'"{opening.repo or "."}"')]
    feeds = FEEDS.get(opening.kind, "tokenizer=tokenizer") if opening.kind else ""
    return [_program(opening, shown, load, f"model=model, {feeds}", ours=True), *stock]


def loads(opening: Opening, *, whole: bool, pinned: bool) -> list[str]:
    """Return programs that open a port, without a sample; see `usage`. That of hf_bico comes last."""
    name = opening.repo or "."
    if whole:
        return [opening.native]
    base = "" if pinned else f', base="{WHERE}"'
    ours = f'import hf_bico\n\nmodel, preprocess, tokenizer = hf_bico.from_pretrained("{name}"{base})'
    if opening.library != "transformers" or not pinned:  # PEFT would look for a folder's name on the Hub
        return [ours]
    built = f", num_labels={len(opening.labels)}" if opening.labels else ""
    return [opening.native.replace(f'"{name}")', f'"{name}"{built})', 1), ours]


def _program(opening: Opening, shown: Shown, load: str, model: str, *, ours: bool = False) -> str:
    """Return a program that asks a port one sample.

    Args:
        load: lines that open it.
        model: what a pipeline is given of it.
        ours: whether hf_bico opens it.
    """
    kind, library = opening.kind, opening.library
    if library == "open_clip":
        return _clip(load, shown)
    if library == SENTENCES:
        return load + _by_hand(PurposeKind.FEATURES, shown) if ours else f"{load}\n{_similar(shown)}"
    if library != "transformers" or kind is None:
        return load
    if kind is PurposeKind.ZERO_SHOT:
        if ours:
            model = "model=model, image_processor=preprocess, tokenizer=tokenizer"
        call = f'Image.open("{PICTURE}"), candidate_labels=labels, hypothesis_template={_quoted(shown.template)}'
        return _piped(load if ours else "", "zero-shot-image-classification", model, call, _labels(shown))
    if kind in CALLS:
        task, call = CALLS[kind]
        if kind in (PurposeKind.CTC, PurposeKind.SPEECH) and ours:
            return load
        return _piped(load if ours else "", task, model, call.replace("{text}", _text(shown, kind)), "")
    return load + _by_hand(kind, shown)


def _piped(load: str, task: str, model: str, call: str, before: str) -> str:
    """Return a program around a pipeline of transformers."""
    imports = ["from PIL import Image"] * (PICTURE in call)
    imports += ["from scipy.io import wavfile"] * ("rate" in call) + ["from transformers import pipeline"]
    reads = f'rate, samples = wavfile.read("{SOUND}")\n' if "rate" in call else ""
    opened = f"\n{load.removeprefix('import hf_bico').strip()}" if load else ""
    head = "\n".join((["import hf_bico"] if load else []) + imports)
    return f'{head}\n{opened}\npipe = pipeline("{task}", {model})\n{before}{reads}print(pipe({call}))'.replace(
        "\n\n\n", "\n\n"
    )


def _clip(load: str, shown: Shown) -> str:
    """Return a program around a model of open_clip."""
    head, opened = load.split("\n\n", 1)
    prompt = shown.template.replace("{}", "{label}")
    return (
        f"{head}\nimport torch\nfrom PIL import Image\n\n{opened}\n{_labels(shown)}"
        f'image = preprocess(Image.open("{PICTURE}")).unsqueeze(0)\n'
        f"texts = tokenizer([f{_quoted(prompt)} for label in labels])\n"
        "with torch.no_grad():\n"
        "    image = model.eval().encode_image(image, normalize=True)\n"
        "    texts = model.encode_text(texts, normalize=True)\n"
        "    shares = (model.logit_scale.exp() * image @ texts.T).softmax(-1)[0]\n"
        'print(labels[shares.argmax()], f"{shares.max():.1%}")'
    )


def _labels(shown: Shown) -> str:
    cut = "  # the first of them" if len(shown.classes) > MOST else ""
    return f"labels = [{', '.join(map(_quoted, shown.classes[:MOST]))}]{cut}\n"


def _text(shown: Shown, kind: PurposeKind) -> str:
    if kind is PurposeKind.TEXT_CLASSES and len(shown.texts) == 2:
        return f'{{"text": {_quoted(shown.texts[0])}, "text_pair": {_quoted(shown.texts[1])}}}'
    return _quoted(" ".join(shown.texts) if shown.texts else SAMPLE)


def _similar(shown: Shown) -> str:
    texts = (*shown.texts, SAMPLE)[:2]
    quoted = ", ".join(map(_quoted, texts))
    return f"features = model.encode([{quoted}])\nprint(model.similarity(features, features))"


def _by_hand(kind: PurposeKind, shown: Shown) -> str:
    """Return lines that ask a loaded model of transformers that has no pipeline; empty where they would be many."""
    first = _quoted(shown.texts[0] if shown.texts else SAMPLE)
    if kind is PurposeKind.SEQ2SEQ:
        return (
            f'\ninputs = tokenizer({first}, return_tensors="pt")\n'
            "answer = model.generate(**inputs, max_new_tokens=20, do_sample=False)\n"
            "print(tokenizer.decode(answer[0], skip_special_tokens=True))"
        )
    if kind is PurposeKind.MASKED_LM:
        words = (shown.texts[0] if shown.texts else SAMPLE).split()
        before, after = " ".join(words[: len(words) // 2]), " ".join(words[len(words) // 2 + 1 :])
        return (
            f"\ntext = {_quoted(before + ' ')} + tokenizer.mask_token + {_quoted(' ' + after)}\n"
            'inputs = tokenizer(text, return_tensors="pt")\n'
            "logits = model(**inputs).logits[inputs.input_ids == tokenizer.mask_token_id]\n"
            "print(tokenizer.decode(logits[0].topk(5).indices))"
        )
    if kind is PurposeKind.SPANS:
        texts = ", ".join(map(_quoted, (*shown.texts, SAMPLE, SAMPLE)[:2]))
        return (
            f'\ninputs = tokenizer({texts}, return_tensors="pt")\n'
            "ends = model(**inputs)\n"
            "first = ends.start_logits[0].argmax()\n"
            "last = first + ends.end_logits[0, first:].argmax()\n"
            "print(tokenizer.decode(inputs.input_ids[0, first : last + 1]))"
        )
    if kind is PurposeKind.FEATURES:
        return (
            f'\ninputs = tokenizer({first}, return_tensors="pt")\n'
            "feature = model(**inputs).last_hidden_state.mean(1)\n"
            "print(feature.shape)"
        )
    return ""


def _quoted(text: str) -> str:
    """Return a text as Python writes it, in double quotes where that can be."""
    plain = repr(text)
    return f'"{plain[1:-1]}"' if plain.startswith("'") and '"' not in plain else plain


def shown_texts(texts: Sequence[str], most: int = 300) -> tuple[str, ...]:
    """Return texts as code shows them: in one line each, of so many characters at most."""
    lines = (" ".join(text.split()) for text in texts)
    return tuple(line if len(line) <= most else line[:most].rsplit(" ", 1)[0] for line in lines)
