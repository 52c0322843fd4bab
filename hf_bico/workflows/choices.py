"""The choices of workflows in small parts; a function takes only the part that it reads."""

from dataclasses import dataclass
from pathlib import Path

from hf_bico.workflows.options import (
    HUB,
    METHOD,
    MODELS,
    OUTPUT,
    RUN,
    SAMPLES,
    argument,
    grouped,
    option,
)

INDEX, CKA = "index", "cka"
"""Rules by which blocks are matched."""


def scale(text: str) -> float | str:
    """Return α as a number if the text is one, else the text itself, which is checked with the other choices."""
    try:
        return float(text)
    except ValueError:
        return text


@grouped(MODELS)
@dataclass(frozen=True)
class ModelChoices:
    """Which fine-tune is carried over to which base."""

    source: str = argument("The fine-tune: org/name[@rev], hf://org/name[@rev] or a folder.", "SOURCE")
    target: str = option("The new base model.", flag="--to")


@grouped(SAMPLES)
@dataclass(frozen=True)
class DataChoices:
    """Where the samples come from."""

    dataset: str = option("Samples of the task: a Hub dataset, a folder or a file (csv, json, jsonl, parquet).")


@grouped(MODELS)
@dataclass(frozen=True, kw_only=True)
class SourceChoices:
    """What of a source is taken."""

    subfolder: str | None = option("The folder of SOURCE's repo that it is in, such as checkpoint-500.", None)
    source_kind: str | None = option(
        "What SOURCE is taken for where it holds both: model, or adapter [default: model].", None
    )


@grouped(MODELS)
@dataclass(frozen=True, kw_only=True)
class BaseChoices:
    """What the fine-tune came from."""

    base: str | None = option("What SOURCE was fine-tuned from [default: its card's base_model].", None)
    trust_base: bool = option("Take the base for SOURCE's even if their weights have nothing in common.", False)


@grouped(SAMPLES)
@dataclass(frozen=True, kw_only=True)
class ReadingChoices:
    """How the samples are read."""

    config: str | None = option("The dataset's configuration.", None)
    split: str = option("Split that the calibration samples are drawn from, or a part: train[:80%].", "train")
    columns: str | None = option(
        "Which column has which role, as role=column,… (image, images, label, text, text_pair, prompt, completion, "
        "messages, tokens, tags, question, context, answers, anchor, positive, negative, audio, transcription); "
        "label=a|b|c where every class has a column of its own, negative=a|b of several "
        "[default: found by name and type].",
        None,
    )
    streaming: bool = option("Read only the first rows of files that are not parquet, in place of all.", False)
    templates: Path | None = option(
        "A file of prompts, one a line, {} for the class [default: the dataset's].", None, exists=True
    )
    max_length: int = option("The most tokens of a text sample; longer texts are cut.", 256, least=1)


@grouped(SAMPLES)
@dataclass(frozen=True, kw_only=True)
class ScoringChoices:
    """What models are scored on."""

    eval_split: str | None = option(
        "Split to score on, or a part of one [default: test or validation; without those one in five rows of --split].",
        None,
    )
    eval_n: int | None = option("How many samples of it to score on [default: all].", None)
    score_dtype: str | None = option(
        "Dtype in which models run where they are scored or tried on held-out samples, by autocast, such as bfloat16: "
        "several times as fast where the machine has it [default: that of their weights].",
        None,
    )


@grouped(SAMPLES)
@dataclass(frozen=True, kw_only=True)
class ElsewhereChoices:
    """What else a port is scored on."""

    also: tuple[str, ...] = option(
        "Another dataset, or its folder, on which the new base and the port are scored too, to see what the port may "
        "have broken; may be repeated.",
        (),
    )


@grouped(SAMPLES)
@dataclass(frozen=True, kw_only=True)
class SamplingChoices:
    """Which samples are drawn for calibration."""

    n: int | None = option("How many calibration samples [default: 100].", None, flag="-n")
    per_class: int | None = option("How many samples of every class, in place of -n.", None)
    strategy: str | None = option(
        "How samples are drawn: random, class-balanced, centroid-near, centroid-far, half-class, one-class [default: "
        "random, with --per-class class-balanced].",
        None,
    )
    seed: int = option("Seed of the draw.", 0, least=0)


@grouped(METHOD)
@dataclass(frozen=True, kw_only=True)
class MatchingChoices:
    """Which layers meet."""

    family: str | None = option(
        "generic: read what layers do off a traced forward pass, whatever tables there are [default: where no table "
        "knows the model].",
        None,
    )
    matching: str = option(
        "Which block takes from which: index (the paper's rule), cka (by likeness on the samples), or a YAML file of "
        "target block: source block.",
        INDEX,
    )
    layers: str | None = option("Move into these blocks of the target only, such as 0-5,8.", None)
    skip: str | None = option("Leave these blocks of the target as they are.", None)


@grouped(METHOD)
@dataclass(frozen=True, kw_only=True)
class HeadChoices:
    """What the target answers with."""

    head: str | None = option(
        "What the target is scored with: transport (the source's, carried), ridge (fitted to the samples), zero-shot, "
        "lm, probe [default: what suits SOURCE].",
        None,
    )


@grouped(METHOD)
@dataclass(frozen=True, kw_only=True)
class MethodChoices:
    """How maps are made."""

    method: str = option("How τ is moved: bico, weighted, theseus, naive …; a wrong name lists them all.", "bico")
    method_options: tuple[str, ...] = option(
        "An option of the method, as name=value; may be repeated.", (), flag="--set"
    )
    bank: Path | None = option(
        "A file of general prompts, one a line, for label-free gradients [default: ImageNet's class names].", None
    )


@grouped(METHOD)
@dataclass(frozen=True, kw_only=True)
class PolishChoices:
    """Whether and how a port is trained further."""

    polish: int = option(
        "Train the port further, by so many steps towards SOURCE's own answers on other views of the samples.",
        0,
        least=0,
    )
    polish_rank: int | None = option(
        "Train a LoRA of this rank beside the port, in place of its weights [default: 8 of a language model].",
        None,
        least=1,
    )
    scales: int | None = option(
        "Train coefficients of so many singular directions of every matrix's change, in place of its weights.",
        None,
        least=1,
    )


@grouped(METHOD)
@dataclass(frozen=True, kw_only=True)
class ScaleChoices:
    """How much of a change is added."""

    alpha: float | str = option(
        "Scale of the ported task vector: a number, or auto for a line search of the calibration loss.",
        1.0,
        parse=scale,
    )


@grouped(RUN)
@dataclass(frozen=True, kw_only=True)
class RegressionChoices:
    """Whether a source is taken that has nothing to give."""

    allow_regression: bool = option("Go on although SOURCE is no better than chance.", False)


@grouped(SAMPLES)
@dataclass(frozen=True, kw_only=True)
class UnlabelledChoices:
    """Which samples without labels are taken beside the others."""

    unlabelled: str | None = option(
        "More samples of the same kind, whose labels are not looked at: a Hub dataset or a folder.", None
    )
    unlabelled_n: int | None = option("How many of them [default: 200, or all of fewer].", None, least=1)


@grouped(METHOD)
@dataclass(frozen=True, kw_only=True)
class MapChoices:
    """Which maps that were made before are used."""

    maps: str | None = option(
        "Move τ through maps that `hf-bico align` made, a repo or a folder, in place of making them.", None
    )


@grouped(RUN)
@dataclass(frozen=True, kw_only=True)
class MachineChoices:
    """What a workflow runs on."""

    batch_size: int = option("Samples in a batch: costs memory, changes nothing else.", 8, least=1)
    device: str | None = option("Where to run [default: an accelerator if there is one, else the CPU].", None)


@grouped(RUN)
@dataclass(frozen=True, kw_only=True)
class MemoryChoices:
    """How much memory is taken."""

    memory: str | None = option(
        "The most memory to take, such as 40GB or 8GiB: layers are ported in as many groups as it takes, each in a "
        "pass of its own; it changes nothing else [default: all layers in one pass].",
        None,
    )


@grouped(RUN)
@dataclass(frozen=True, kw_only=True)
class PrecisionChoices:
    """How exactly models are held."""

    model_dtype: str = option(
        "Dtype that models are held in while they are ported: float32, or stored (that of their files, such as "
        "bfloat16: half the memory, and gradients rounded to it; of models of text alone).",
        "float32",
    )


@grouped(OUTPUT)
@dataclass(frozen=True, kw_only=True)
class FormChoices:
    """How a port is written."""

    form: str = option(
        "What to write: model (the whole), delta (the change of --to alone), or lora (the change as a LoRA).",
        "model",
        flag="--as",
    )
    rank: int | None = option("Rank of a lora, if the change is not of low rank already.", None)
    energy: float | None = option(
        "Rank of a lora by the share of every layer's ‖τ‖² that is kept [default: all of it].", None
    )
    dtype: str | None = option(
        "Dtype of a delta's matrices: bfloat16 or float32 [default: bfloat16, unless rounding is measurable].", None
    )


@grouped(OUTPUT)
@dataclass(frozen=True, kw_only=True)
class OutputChoices:
    """Where a result is kept."""

    output: Path | None = option("A folder to write to; it must be new or empty.", None)
    overwrite: bool = option(
        "Replace what is there already, if it is a result of hf-bico's, with all that lies in it; the new one is whole "
        "before the old one goes.",
        False,
    )


@grouped(HUB)
@dataclass(frozen=True, kw_only=True)
class PushChoices:
    """Whether and where a result is published."""

    push: bool = option("Publish as USER/SOURCE-on-TARGET; the name of a delta or lora ends in that.", False)
    push_to: str | None = option("Publish as this repo.", None)
    private: bool | None = option("Make the repo private.", None)
    create_pr: bool = option("Propose the push as a pull request.", False)
    commit_message: str | None = option("Message of the push's commit.", None)


@grouped(HUB)
@dataclass(frozen=True, kw_only=True)
class AnnounceChoices:
    """Whether the fine-tune's owner is told."""

    announce: bool = option(
        "After the push, propose to SOURCE's owner, as a pull request, that its page names the port as its new "
        "version.",
        False,
    )


@grouped(METHOD)
@dataclass(frozen=True, kw_only=True)
class MovingChoices:
    """Which of a fine-tune's tensors move."""

    only: str | None = option(
        "What moves: linear (the linear maps alone, as in the paper), or a list of linear, tokens (embeddings, "
        "language-model heads), positions, patches, special (class tokens and the like), norms, biases (relative "
        "positions) [default: all of them; of a delta or LoRA of transformers, which hold no more, linear].",
        None,
    )


@grouped(METHOD)
@dataclass(frozen=True, kw_only=True)
class TokenChoices:
    """Whether tokens of the fine-tune come along."""

    add_tokens: bool = option(
        "Add the tokens that SOURCE added to its base's tokenizer to the new base's too, with a chat template that "
        "uses them.",
        False,
    )
