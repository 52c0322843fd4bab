"""The choices of every workflow, composed of small parts; a function takes only the part that it reads."""

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
    is_chosen,
    option,
    options_of,
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
        "Replace what is there already, if it is a result of hf-bico's; the new one is whole before the old one goes.",
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


@dataclass(frozen=True, kw_only=True)
class TaskChoices(
    MovingChoices,
    HeadChoices,
    MachineChoices,
    MatchingChoices,
    ScoringChoices,
    ReadingChoices,
    SourceChoices,
    BaseChoices,
    DataChoices,
    ModelChoices,
):
    """The choices that a port, a check and a comparison share."""


@dataclass(frozen=True, kw_only=True)
class PortConfig(
    AnnounceChoices,
    PushChoices,
    OutputChoices,
    FormChoices,
    MemoryChoices,
    PrecisionChoices,
    TokenChoices,
    RegressionChoices,
    ScaleChoices,
    PolishChoices,
    MapChoices,
    MethodChoices,
    UnlabelledChoices,
    SamplingChoices,
    ElsewhereChoices,
    TaskChoices,
):
    """Every choice of a port: the options of `hf-bico port`, one to one."""

    def __repr__(self) -> str:
        """Return what is not at its default, as the config is made."""
        given = (f"{each.name}={getattr(self, each.name)!r}" for each, _ in options_of(self) if is_chosen(self, each))
        return f"PortConfig({', '.join(given)})"

    method: str = option(
        "How τ is moved: auto (what does best on samples that are held out), bico (the paper), response, weighted, "
        "theseus, naive …; a wrong name lists them all.",
        "auto",
    )
    allow_regression: bool = option(
        "Go on although SOURCE is no better than chance, and push a port that gains nothing, or is worse than the new "
        "base without it by any metric, or than a measured baseline such as the naive copy.",
        False,
    )


@dataclass(frozen=True, kw_only=True)
class CheckConfig(MemoryChoices, RegressionChoices, MethodChoices, SamplingChoices, TaskChoices):
    """Every choice of a check."""

    dataset: str = option("Samples of the task, to compare the two models on.", "")
    n: int | None = option("Samples to look at [default: 50].", None, flag="-n")


@grouped(MODELS)
@dataclass(frozen=True, kw_only=True)
class GapChoices:
    """What the gap is measured to."""

    target_tuned: str | None = option(
        "A fine-tune of the new base itself, to measure the gap to [default: the source's own score].", None
    )


@grouped(METHOD)
@dataclass(frozen=True, kw_only=True)
class ManyMethods:
    """Which methods are compared, and at which scales."""

    methods: tuple[str, ...] = option(
        'A method to compare, with options of its own after it ("response ridge=1"); may be repeated [default: all].',
        (),
        flag="--method",
    )
    options: tuple[str, ...] = option("An option of a method, as METHOD:name=value; may be repeated.", (), flag="--set")
    bank: Path | None = option(
        "A file of general prompts, one a line, for label-free gradients [default: ImageNet's class names].", None
    )
    alphas: tuple[float | str, ...] = option(
        "Scale of the ported task vector: a number or auto; may be repeated [default: 1].",
        (1.0,),
        flag="--alpha",
        parse=scale,
    )


@grouped(SAMPLES)
@dataclass(frozen=True, kw_only=True)
class ManySamples:
    """How samples are drawn, each time anew."""

    sizes: tuple[int, ...] = option("How many calibration samples; may be repeated [default: 100].", (), flag="-n")
    per_class: tuple[int, ...] = option("How many samples of every class, in place of -n; may be repeated.", ())
    strategy: str | None = option(
        "How samples are drawn: random, class-balanced, centroid-near, centroid-far, half-class, one-class [default: "
        "random, with --per-class class-balanced].",
        None,
    )
    seeds: int = option("How many draws of every size, with the seeds 0, 1, 2 …", 3, least=1)


@dataclass(frozen=True, kw_only=True)
class CompareConfig(OutputChoices, RegressionChoices, PolishChoices, ManyMethods, ManySamples, GapChoices, TaskChoices):
    """Every choice of a comparison."""


@grouped(MODELS)
@dataclass(frozen=True)
class BasesChoices:
    """Which two bases are aligned."""

    base: str = argument("The base that fine-tunes start from.", "BASE")
    target: str = argument("The new base.", "TARGET")


@dataclass(frozen=True, kw_only=True)
class AlignConfig(
    PushChoices,
    OutputChoices,
    MemoryChoices,
    MachineChoices,
    MethodChoices,
    SamplingChoices,
    MatchingChoices,
    HeadChoices,
    ReadingChoices,
    DataChoices,
    BasesChoices,
):
    """Every choice of an alignment."""

    dataset: str = option("Samples to align the bases on: a Hub dataset or a folder.")
    output: Path = option("A folder to write the maps to; it must be new or empty.")
    head: str | None = option(
        "The head that gradients are taken under: ridge (a classifier fitted to both), probe (of a model of features), "
        "zero-shot, lm [default: what suits BASE and the samples].",
        None,
    )
    push: bool = option("Publish as USER/BASE-to-TARGET-maps.", False)


@grouped(RUN)
@dataclass(frozen=True, kw_only=True)
class FleetConfig:
    """Every choice of a fleet beside its plan."""

    plan: Path = argument("A YAML file of sources, targets, methods and settings.", "PLAN")
    jobs: int = option("How many cells are ported at once on this machine.", 1, least=1)
    on: str = option("Where they are ported: here, or hf-jobs (each as a Hugging Face Job).", "here")
    show: bool = option("Print what would be run or submitted, and stop.", False, flag="--print")


@grouped(MODELS)
@dataclass(frozen=True)
class TunedChoices:
    """Of which fine-tune the change is taken."""

    source: str = argument("The fine-tune: org/name[@rev], hf://org/name[@rev] or a folder.", "SOURCE")


@dataclass(frozen=True, kw_only=True)
class ExtractConfig(OutputChoices, SourceChoices, BaseChoices, TunedChoices):
    """Every choice of an extraction."""

    output: Path = option("A .safetensors file to write.")


@grouped(MODELS)
@dataclass(frozen=True)
class SumChoices:
    """Which change is added to which model."""

    delta: str = argument("A task vector that `hf-bico extract` wrote, or a delta repo.", "DELTA")
    target: str = option("The model to add it to.", flag="--to")


@dataclass(frozen=True, kw_only=True)
class ApplyConfig(OutputChoices, ScaleChoices, SumChoices):
    """Every choice of a sum."""

    output: Path = option("A folder to write the sum to; it must be new or empty.")
    alpha: float = option("Scale of the task vector.", 1.0)


@grouped(MODELS)
@dataclass(frozen=True)
class PlaceChoices:
    """Whose card is written."""

    place: str = argument("A port or maps: their folder, or org/name[@rev].", "DIR_OR_REPO")


@grouped(HUB)
@dataclass(frozen=True, kw_only=True)
class CardConfig(PlaceChoices):
    """Every choice of a card that is written anew."""

    push: bool = option("Push the card of a repo; without it, it is printed.", False)
    create_pr: bool = option("Propose the card of a repo as a pull request.", False)
    commit_message: str | None = option("Message of the push's commit.", None)


@grouped(MODELS)
@dataclass(frozen=True)
class ToldChoices:
    """What a page tells of."""

    place: str = argument(
        "What to tell of: a folder or a repo that port, align or compare wrote, or a JSON file that a command printed.",
        "DIR_OR_REPO",
    )


@grouped(OUTPUT)
@dataclass(frozen=True, kw_only=True)
class ReportConfig(ToldChoices):
    """Every choice of a page."""

    output: Path | None = option(
        "An HTML file to write [default: report.html in the folder; of a repo NAME-report.html here].", None
    )
    show: bool = option("Open the page in a browser.", False, flag="--open")


@grouped(MODELS)
@dataclass(frozen=True, kw_only=True)
class RefChoices:
    """What is scored."""

    refs: tuple[str, ...] = argument(
        "A model, a delta or an adapter: org/name[@rev], hf://org/name[@rev] or a folder; several are asked about the "
        "same samples.",
        "REF",
    )
    base: str | None = option(
        "What deltas and adapters are opened over [default: what they name, at the commit that they name].", None
    )


@grouped(SAMPLES)
@dataclass(frozen=True, kw_only=True)
class EvalConfig(MachineChoices, ReadingChoices, RefChoices):
    """Every choice of an evaluation."""

    dataset: str = option("Samples of the task: a Hub dataset, a folder or a file (csv, json, jsonl, parquet).")
    split: str = option(
        "Split to score on, or a part of one, such as train[:80%] [default: test or validation; without those one in "
        "five rows].",
        "",
    )
    n: int | None = option("How many samples of it to score on [default: all].", None, flag="-n")
    seed: int = option("Seed of the draw.", 0, least=0)
    score_dtype: str | None = option(
        "Dtype in which models run, by autocast, such as bfloat16 [default: that of their weights].", None
    )
