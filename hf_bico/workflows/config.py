"""Every choice of every command, composed of the parts in `choices`."""

from dataclasses import dataclass
from pathlib import Path

from hf_bico.workflows.choices import (
    AnnounceChoices,
    BaseChoices,
    DataChoices,
    ElsewhereChoices,
    FormChoices,
    HeadChoices,
    MachineChoices,
    MapChoices,
    MatchingChoices,
    MemoryChoices,
    MethodChoices,
    ModelChoices,
    MovingChoices,
    OutputChoices,
    PolishChoices,
    PrecisionChoices,
    PushChoices,
    ReadingChoices,
    RegressionChoices,
    SamplingChoices,
    ScaleChoices,
    ScoringChoices,
    SourceChoices,
    TokenChoices,
    UnlabelledChoices,
    scale,
)
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
    """What ports are measured by."""

    target_tuned: str | None = option(
        "A fine-tune of the new base itself, by whose gain ports are measured [default: by the gap to SOURCE's own "
        "score].",
        None,
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


@grouped(OUTPUT)
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
    map_dtype: str = option(
        "Dtype that the maps are stored in: float32, or float16, half as large and off by rounding.",
        "float32",
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
class EvalConfig(MachineChoices, ReadingChoices, DataChoices, RefChoices):
    """Every choice of an evaluation."""

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
