"""What a transformers model is for, by the name of its class and by its config."""

from typing import Any

from torch import nn

from hf_bico.core.errors import PortError
from hf_bico.families.protocol import Purpose, PurposeKind

KINDS = {
    "ForImageClassification": (PurposeKind.IMAGE_CLASSES, "AutoModelForImageClassification"),
    "ForImageClassificationWithTeacher": (PurposeKind.IMAGE_CLASSES, "AutoModelForImageClassification"),
    "ForSequenceClassification": (PurposeKind.TEXT_CLASSES, "AutoModelForSequenceClassification"),
    "ForAudioClassification": (PurposeKind.SOUND_CLASSES, "AutoModelForAudioClassification"),
    "ForCTC": (PurposeKind.CTC, "AutoModelForCTC"),
    "ForSpeechSeq2Seq": (PurposeKind.SPEECH, "AutoModelForSpeechSeq2Seq"),
    "ForTokenClassification": (PurposeKind.TOKEN_CLASSES, "AutoModelForTokenClassification"),
    "ForQuestionAnswering": (PurposeKind.SPANS, "AutoModelForQuestionAnswering"),
    "ForQuestionAnsweringSimple": (PurposeKind.SPANS, "AutoModelForQuestionAnswering"),
    "ForCausalLM": (PurposeKind.CAUSAL_LM, "AutoModelForCausalLM"),
    "LMHeadModel": (PurposeKind.CAUSAL_LM, "AutoModelForCausalLM"),
    "ForConditionalGeneration": (PurposeKind.SEQ2SEQ, "AutoModelForSeq2SeqLM"),
    "MTModel": (PurposeKind.SEQ2SEQ, "AutoModelForSeq2SeqLM"),
    "ForVisionText2Text": (PurposeKind.IMAGE_TEXT, "AutoModelForImageTextToText"),
    "ForMaskedLM": (PurposeKind.MASKED_LM, "AutoModelForMaskedLM"),
    "ForPreTraining": (PurposeKind.MASKED_LM, "AutoModelForPreTraining"),
    "EncoderModel": (PurposeKind.FEATURES, "AutoModel"),
    "Model": (PurposeKind.FEATURES, "AutoModel"),
}
"""End of a class's name → what it is for, and the auto class that opens any model for the same."""
OF_SOUND = {PurposeKind.TEXT_CLASSES: PurposeKind.SOUND_CLASSES, PurposeKind.SEQ2SEQ: PurposeKind.SPEECH}
"""What the end of a class's name says → what it is for where it takes sound."""
SPEAKERS = ("whisper", "moonshine")
"""`model_type`s with an encoder of sound and a decoder of text."""
SEEING = (
    *("LlavaForConditionalGeneration", "Gemma3ForConditionalGeneration", "Idefics3ForConditionalGeneration"),
    *("SmolVLMForConditionalGeneration", "Qwen2VLForConditionalGeneration", "Qwen2_5_VLForConditionalGeneration"),
    *("Qwen3VLForConditionalGeneration", "PaliGemmaForConditionalGeneration"),
)
"""Classes that answer texts with images in them, as tests feed them."""
CONTRASTIVE = ("clip", "metaclip_2", "siglip")
"""`model_type`s with an image tower and a text tower."""
TASKS = {
    PurposeKind.IMAGE_CLASSES: "image-classification",
    PurposeKind.TEXT_CLASSES: "text-classification",
    PurposeKind.TOKEN_CLASSES: "token-classification",
    PurposeKind.SPANS: "question-answering",
    PurposeKind.SOUND_CLASSES: "audio-classification",
    PurposeKind.CTC: "automatic-speech-recognition",
    PurposeKind.SPEECH: "automatic-speech-recognition",
    PurposeKind.CAUSAL_LM: "text-generation",
    PurposeKind.SEQ2SEQ: "text2text-generation",
    PurposeKind.IMAGE_TEXT: "image-text-to-text",
    PurposeKind.FEATURES: "feature-extraction",
    PurposeKind.MASKED_LM: "fill-mask",
    PurposeKind.ZERO_SHOT: "zero-shot-image-classification",
}
"""What a model is for → the Hub's name of the task."""
PEFT_TASKS = {
    "SEQ_CLS": "ForSequenceClassification",
    "TOKEN_CLS": "ForTokenClassification",
    "QUESTION_ANS": "ForQuestionAnswering",
    "CAUSAL_LM": "ForCausalLM",
    "SEQ_2_SEQ_LM": "ForConditionalGeneration",
    "FEATURE_EXTRACTION": "Model",
}
"""PEFT's task type → the end of the name of the class that an adapter was trained on."""
HEADS = ("id2label", "label2id", "problem_type")
"""Entries of a config about its classifier."""
NARROWED = "classifier_proj_size"
"""The one about the width of the layer before a classifier of sounds."""
LETTERS = ("vocab_size", "pad_token_id")
"""Those about the letters that CTC answers with; padding stands for none."""


def kind_of(architecture: str) -> PurposeKind | None:
    """Return what a class of this name is for; None if that is not known."""
    if architecture.endswith("DoubleHeadsModel"):  # no model of features
        return None
    if architecture in SEEING:
        return PurposeKind.IMAGE_TEXT
    kind = next((kind for end, (kind, _) in KINDS.items() if architecture.endswith(end)), None)
    return _heard(kind, architecture)


def _heard(kind: PurposeKind | None, architecture: str) -> PurposeKind | None:
    """Return what a class is for, by what the end of its name says, and by whether it takes sound."""
    return OF_SOUND.get(kind, kind) if kind in OF_SOUND and "audio" in _takes(architecture) else kind


def _takes(architecture: str) -> set[str]:
    """Return what a class takes, by what transformers says of it: text, image, audio …"""
    import transformers

    said = getattr(getattr(transformers, architecture, None), "input_modalities", "text")
    return {said} if isinstance(said, str) else set(said)


def of_model(model: nn.Module) -> Purpose:
    """Return what a live model is for; one without a config (open_clip's) is for zero-shot classification.

    Raises:
        PortError: its class is for a task that is not known.
    """
    config = getattr(model, "config", None)
    return Purpose(PurposeKind.ZERO_SHOT) if config is None else of_config(config, type(model).__name__)


def of_config(config: Any, name: str | None = None) -> Purpose:
    """Return what the model of a config is for.

    Args:
        name: of the model's class; None: the one that the config names.

    Raises:
        PortError: the class is for a task that is not known.
    """
    stored, name = name is None, name or _architecture(config)
    kind = kind_of(name)
    if kind is None:
        known = ", ".join(f"…{end}" for end in KINDS)
        raise PortError(f"a {name} is for a task that this version does not know; it ports {known}")
    if stored:  # what a live model takes is its script's to give
        _require_fed(config, name, kind)
    if config.model_type in CONTRASTIVE and kind is PurposeKind.FEATURES:
        return Purpose(PurposeKind.ZERO_SHOT, architecture=name)
    if kind is PurposeKind.FEATURES and config.is_encoder_decoder and not name.endswith("EncoderModel"):
        raise PortError(f"a {name} has a decoder, which gives no features of a text: save its encoder alone")
    return _purpose(config, kind, name)


def of_adapter(config: Any, task: str | None, cls: str | None, classes: int | None = None) -> Purpose:
    """Return what a base with an adapter is for.

    Args:
        config: the base's.
        task: PEFT's task type.
        cls: the base's class, where the adapter names it.
        classes: number of classes of a head that the adapter brings; they are named LABEL_0 … where the base's config
            has another number.

    Raises:
        PortError: the task is not known.
    """
    own = _architecture(config)
    end = PEFT_TASKS.get(task) if task else cls or own
    kind = _heard(kind_of(end), own) if end else None
    _require_fed(config, own, kind)
    if kind is None:
        raise PortError(
            f"an adapter for {task or cls} is for a task that this version does not know; it ports "
            f"{', '.join(PEFT_TASKS)}"
        )
    if kind_of(own) is PurposeKind.IMAGE_TEXT:  # trained as a language model, PEFT says
        return Purpose(PurposeKind.IMAGE_TEXT, architecture=own)
    same = kind_of(own) == kind or any(own.endswith(last) for last, (other, _) in KINDS.items() if other == kind)
    if kind.classifies and classes not in (None, len(config.id2label)):
        config.id2label = {i: f"LABEL_{i}" for i in range(classes)}
        config.label2id = {label: i for i, label in config.id2label.items()}
    if kind is PurposeKind.CTC and classes is not None:
        config.vocab_size = classes
    return _purpose(config, kind, own if task and same else None if task else end)


def _purpose(config: Any, kind: PurposeKind, name: str | None) -> Purpose:
    if kind is PurposeKind.CTC:
        return Purpose(kind, config={key: getattr(config, key) for key in LETTERS}, architecture=name)
    if not kind.classifies:
        return Purpose(kind, architecture=name)
    labels = tuple(str(config.id2label[index]) for index in sorted(config.id2label))
    width = {NARROWED: getattr(config, NARROWED)} if hasattr(config, NARROWED) else {}
    return Purpose(kind, labels, {key: getattr(config, key, None) for key in HEADS} | width, name)


def _require_fed(config: Any, name: str, kind: PurposeKind | None) -> None:
    """Refuse a class that takes anything but texts or images, by what transformers says of it; CLIP's kind takes both,
    and models of sound are taken that classify it or write it down.

    Raises:
        PortError: it takes time series, images and texts together, or sound for another end.
    """
    import transformers

    if name in SEEING:
        return
    cls, takes = getattr(transformers, name, None), _takes(name)
    if kind is not None and kind.hears and (kind is not PurposeKind.SPEECH or config.model_type in SPEAKERS):
        if getattr(config, "use_weighted_layer_sum", False):
            raise PortError(
                f"a {name} with use_weighted_layer_sum reads all of its blocks, whose weights are not carried yet: "
                "train it on the last one (use_weighted_layer_sum false)"
            )
        return
    towers = any(hasattr(config, f"{each}_config") for each in ("vision", "audio"))
    if "text" in takes and getattr(cls, "main_input_name", "input_ids") == "input_ids" and not towers:
        takes = {"text"}  # the language model of one that takes more (Gemma 3)
    if config.model_type not in CONTRASTIVE and takes not in ({"text"}, {"image"}):
        raise PortError(
            f"a {name} takes {' and '.join(sorted(takes))}, which this version cannot feed; it ports models that take "
            f"texts or images alone, of those that take both {', '.join(SEEING)}, and of sound "
            "…ForAudioClassification, …ForSequenceClassification, …ForCTC and the …ForConditionalGeneration of "
            f"{' and '.join(SPEAKERS)}"
        )


def _architecture(config: Any) -> str:
    """Return the name of the class that a config names; refuse a config without one."""
    if config.architectures:
        return str(config.architectures[0])
    if config.model_type == "timm_wrapper":
        return "TimmWrapperForImageClassification"
    raise PortError('config.json names no architecture: add "architectures": ["…For…"] to it')
