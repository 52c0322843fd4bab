"""What a source requires of its data and its head, and what the method requires of both."""

from collections.abc import Mapping
from pathlib import Path

from hf_bico.core.errors import PortError, listed, setting
from hf_bico.core.method import Method
from hf_bico.core.search import AUTO
from hf_bico.families import Answer, Library, Purpose, PurposeKind
from hf_bico.families.heads import HeadKind
from hf_bico.io.adapter import is_adapter
from hf_bico.io.reference import Lineage
from hf_bico.tasks.columns import SampleKind
from hf_bico.tasks.samples import Task
from hf_bico.tasks.splits import lines


def head_of(named: str | None, purpose: Purpose, task: Task) -> HeadKind:
    """Return the kind of head that a port uses: the one named, else what suits the purpose.

    Raises:
        PortError: the one named is not for this model.
    """
    fit = {
        PurposeKind.ZERO_SHOT: (HeadKind.ZERO_SHOT,),
        PurposeKind.CAUSAL_LM: (HeadKind.LM,),
        PurposeKind.SEQ2SEQ: (HeadKind.LM,),
        PurposeKind.MASKED_LM: (HeadKind.LM,),
        PurposeKind.SPEECH: (HeadKind.LM,),
        PurposeKind.CTC: (HeadKind.TRANSPORT,),
        PurposeKind.IMAGE_TEXT: (HeadKind.LM,),
        PurposeKind.FEATURES: (_of_features(task),),
    }
    choices = fit.get(purpose.kind, (HeadKind.TRANSPORT, HeadKind.RIDGE))
    if named is not None and named not in choices:
        raise PortError(
            f"{setting('head')} {named} is not for a model of {purpose.kind}; there it is {' or '.join(choices)}"
        )
    return HeadKind(named) if named else choices[0]


def _of_features(task: Task) -> HeadKind:
    if task.class_names:
        return HeadKind.PROBE
    return HeadKind.COSINE if task.is_paired else HeadKind.NONE


TOKENIZERS = {
    "tokenizer.json",
    "vocab.txt",
    "vocab.json",
    "spiece.model",
    "tokenizer.model",
    "tokenizer_config.json",
    "sentencepiece.bpe.model",
}
"""Files of which a text model has at least one."""
PREPARING = {"preprocessor_config.json", "processor_config.json"}
"""Files of which a model of sound, or of images with texts, has at least one."""
TAKES = {
    PurposeKind.ZERO_SHOT: {SampleKind.IMAGE},
    PurposeKind.IMAGE_CLASSES: {SampleKind.IMAGE},
    PurposeKind.TEXT_CLASSES: {SampleKind.TEXT, SampleKind.PAIR},
    PurposeKind.CAUSAL_LM: {SampleKind.PLAIN, SampleKind.CHAT, SampleKind.COMPLETION, SampleKind.TEXT, SampleKind.PAIR},
    PurposeKind.SEQ2SEQ: {SampleKind.COMPLETION, SampleKind.TEXT, SampleKind.PAIR},
    PurposeKind.FEATURES: {SampleKind.TEXT, SampleKind.PAIR, SampleKind.PLAIN, SampleKind.IMAGE, SampleKind.TOGETHER},
    PurposeKind.MASKED_LM: {SampleKind.PLAIN, SampleKind.TEXT, SampleKind.PAIR},
    PurposeKind.TOKEN_CLASSES: {SampleKind.TAGS},
    PurposeKind.SPANS: {SampleKind.SPAN},
    PurposeKind.SOUND_CLASSES: {SampleKind.SOUND},
    PurposeKind.CTC: {SampleKind.SPEECH},
    PurposeKind.SPEECH: {SampleKind.SPEECH},
    PurposeKind.IMAGE_TEXT: {SampleKind.SIGHT},
}
"""What a model is for → the kinds of samples that it can be calibrated on."""


def check_search(alpha: float | str, head: HeadKind) -> None:
    """Refuse a line search under a head that is fitted to the same samples: it would choose no change at all.

    Raises:
        PortError: α is searched under such a head.
    """
    if alpha == AUTO and head.is_fitted:
        raise PortError(
            f"{setting('alpha')} {AUTO} goes by the loss of the samples that the "
            f"head ({head}) is fitted to: give a number"
        )


def require_task(purpose: Purpose, task: Task, lineage: Lineage, method: Method) -> None:
    """Refuse data that the source cannot be asked about.

    Raises:
        PortError: data of another kind, no labels where they are needed, other classes than the source's; a method that
            needs a loss for a model of features without labels.
    """
    if purpose.kind not in TAKES:
        raise PortError(
            f"{lineage.source} is for {purpose.kind}, whose loss this version does not know; it ports "
            f"{', '.join(TAKES)}"
        )
    kind, takes = task.columns.kind, TAKES[purpose.kind]
    _require_ears(purpose, lineage)
    if kind is SampleKind.PLAIN and purpose.kind is PurposeKind.TEXT_CLASSES:
        raise PortError(
            f"{lineage.dataset} has a text ({task.columns.names['text']}) and no column that is known to hold "
            f"labels: name it with {setting('columns')} label=…"
        )
    if kind not in (SampleKind.IMAGE, SampleKind.SOUND) and purpose.kind is not PurposeKind.ZERO_SHOT:
        bare = [str(each) for each in lineage.models[1:] if not TOKENIZERS & set(each.files)]
        if purpose.kind is PurposeKind.CTC:  # all models spell with the fine-tune's letters
            spells = any(TOKENIZERS & set(each.files) for each in lineage.models[:2])
            bare = [] if spells else [str(lineage.source)]
        if bare:
            raise PortError(f"{listed(bare)} has no tokenizer (tokenizer.json, vocab.txt …): copy one to it")
    if kind not in takes:
        of_images = " (image or images; prompt and completion, messages, or text)" * (SampleKind.SIGHT in takes)
        raise PortError(
            f"{lineage.source} is for {purpose.kind}, but {lineage.dataset} has samples of the kind {kind}; it "
            f"takes {', '.join(sorted(takes))}{of_images}: name its columns with "
            f"{setting('columns')}, or another {setting('dataset')}"
        )
    if kind is SampleKind.SIGHT:
        blind = [str(each) for each in lineage.models[1:] if not PREPARING & set(each.files)]
        if blind:
            raise PortError(
                f"{listed(blind)} has no processor of images (processor_config.json, preprocessor_config.json): copy "
                "one to it"
            )
    if not task.columns.labels and (purpose.kind is PurposeKind.ZERO_SHOT or purpose.kind.classifies):
        raise PortError(
            f"{lineage.dataset} has no labels, which a port of {purpose.kind} needs: name their column "
            f"with {setting('columns')} label=…"
        )
    _require_answer(purpose, task, lineage)
    if purpose.labels and task.class_names and len(purpose.labels) != len(task.class_names):
        raise PortError(
            f"{lineage.source} has {len(purpose.labels)} classes, but {lineage.dataset} has "
            f"{len(task.class_names)}: name the dataset that it was fine-tuned on"
        )
    if purpose.kind is PurposeKind.FEATURES and not (task.class_names or task.is_paired) and method.needs_loss:
        raise PortError(
            f"a model of features has no loss without labels, which {method.name} needs: take gradients "
            f"without labels ({setting('method_options')} label_free=1), or {setting('method')} theseus"
        )


def _require_ears(purpose: Purpose, lineage: Lineage) -> None:
    """Refuse models of sound whose repos do not say how it goes in; an adapter's is its base's.

    Raises:
        PortError: there is one.
    """
    whole = [each for each in lineage.models if not is_adapter(each)] if purpose.kind.hears else []
    deaf = dict.fromkeys(str(each) for each in whole if not PREPARING & set(each.files))
    if deaf:
        raise PortError(f"{listed(list(deaf))} has no feature extractor (preprocessor_config.json): copy one to it")


SAYS = {
    Answer.CLASS: "gives one class",
    Answer.CLASSES: "gives several classes, each by a yes or no",
    Answer.NUMBER: "gives numbers",
}
"""What a classifier gives → the same in words."""
HOW = {
    Answer.CLASSES: 'if it was trained on several, say "problem_type": "multi_label_classification" in its config.json',
    Answer.NUMBER: 'if it was trained on numbers, say "problem_type": "regression" in its config.json',
}
"""What a sample has → how a model's config says that it gives that."""


def _require_answer(purpose: Purpose, task: Task, lineage: Lineage) -> None:
    """Refuse labels of another kind than the model gives: under the loss of one, the other would be nonsense.

    Raises:
        PortError: one class where there are several, classes where there are numbers, and so on.
    """
    own, there = purpose.answer, task.labels.answer
    if own is Answer.NUMBER and len(purpose.labels) > 1:
        raise PortError(
            f"{lineage.source} gives {len(purpose.labels)} numbers a sample (problem_type regression), and this "
            "version ports models that give one"
        )
    if purpose.kind in (PurposeKind.ZERO_SHOT, PurposeKind.CAUSAL_LM, PurposeKind.SEQ2SEQ, PurposeKind.FEATURES):
        own = there if purpose.kind is PurposeKind.FEATURES and task.is_paired else Answer.CLASS
    if own is None or own is there or not task.columns.labels:
        return
    problem = purpose.config.get("problem_type")
    said = SAYS.get(own, f"gives {own}") + (f" (problem_type {problem})" if problem else "")
    mend = HOW.get(there, "name other columns") if own in (Answer.CLASS, Answer.NUMBER) and not problem else ""
    raise PortError(
        f"{lineage.source} {said}, and {lineage.dataset} has {there} a sample ({', '.join(task.columns.labels[:3])}): "
        + (f"{mend}, or " if mend else "")
        + f"name the dataset that it was fine-tuned on, or its column with {setting('columns')} label=…"
    )


def read_bank(
    path: Path | None, methods: Mapping[str, Method], library: Library, purpose: Purpose, task: Task
) -> tuple[str, ...]:
    """Return the general texts of label-free gradients: the lines of a file, else the library's own; empty where no
    method takes such gradients.

    Raises:
        PortError: a file that no method reads, or with fewer than two lines; a model that no general text suits.
    """
    if not any(method.wanted.draws for method in methods.values()):
        if path is not None:
            raise PortError(
                f"{setting('bank')} is for gradients without labels, which {listed(list(methods))} does not take: "
                "leave it out"
            )
        return ()
    silent = purpose.kind.hears or task.columns.kind in (SampleKind.IMAGE, SampleKind.SIGHT)
    if silent and purpose.kind is not PurposeKind.ZERO_SHOT:
        raise PortError(
            "gradients without labels need scores on something general, which a classifier of images, a model of "
            "images with texts or a model of sound lacks: take another method; CLIP-like models and models of "
            "texts have such scores"
        )
    if path is None:
        return library.general_prompts()
    prompts = tuple(lines(path))
    if len(prompts) < 2:
        raise PortError(f"{setting('bank')} {path} needs at least two prompts, a line each")
    return prompts
