"""transformers' model repos: config.json and safetensors, in one file or in shards, with old names or new ones."""

import json
import logging
import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hf_bico.core.errors import PortError, listed
from hf_bico.core.types import Tensors
from hf_bico.families.foreign import reason
from hf_bico.families.protocol import Loaded, Purpose, PurposeKind, Stored
from hf_bico.families.purposes import CONTRASTIVE, KINDS, PEFT_TASKS, TASKS, of_adapter, of_config
from hf_bico.families.sounds import ear_in, speak_like
from hf_bico.families.tokenizing import suit_tokenizer

INDEX = "model.safetensors.index.json"
EXTRA = re.compile(
    r"(tokenizer\w*|special_tokens_map|added_tokens|vocab|merges|normalizer|spiece|sentencepiece[\w.-]*|spm|"
    r"chat_template|preprocessor_config|processor_config|generation_config|"
    r"config_sentence_transformers|sentence_bert_config|modules)\.(json|txt|model|jinja|bpe)"
    r"|\d+_\w+/(config\.json|model\.safetensors)"
)
"""Names of the files that a model opens with, besides its config and weights."""
FEEDERS = {
    PurposeKind.IMAGE_CLASSES: "AutoImageProcessor",
    PurposeKind.IMAGE_TEXT: "AutoProcessor",
    PurposeKind.SOUND_CLASSES: "AutoFeatureExtractor",
    PurposeKind.CTC: "AutoProcessor",
    PurposeKind.SPEECH: "AutoProcessor",
}
"""What prepares the inputs of a model for something, where that is no tokenizer."""

KERNELS = {None, "eager", "sdpa"}
"""Kernels of attention that run, backwards too, wherever torch does; a config may ask for others."""


class Transformers:
    """Opens and writes transformers' repos, of any architecture that a family knows."""

    name = "transformers"
    config_file = "config.json"
    exact = False

    def weights(self, files: Collection[str]) -> tuple[str, ...]:
        if "model.safetensors" in files:
            return ("model.safetensors",)
        shards = sorted(name for name in files if re.fullmatch(r"model-\d+-of-\d+\.safetensors", name))
        return (INDEX, *shards) if INDEX in files and shards else ()

    def extra(self, files: Iterable[str]) -> tuple[str, ...]:
        return tuple(name for name in files if EXTRA.fullmatch(name))

    def purpose(self, folder: Path) -> Purpose:
        config = _config(folder)
        with _opening(folder):
            return of_config(config)

    def task_of(self, purpose: Purpose) -> str | None:
        """Return PEFT's task type for a purpose; None if it has none."""
        return next((task for task, end in PEFT_TASKS.items() if KINDS[end][0] == purpose.kind), None)

    def adapted(self, folder: Path, task: str | None, cls: str | None, classes: int | None = None) -> Purpose:
        """Return the purpose that an adapter gives the base in a folder; see `hf_bico.families.purposes.of_adapter`."""
        config = _config(folder)
        with _opening(folder):
            return of_adapter(config, task, cls, classes)

    def skeleton(self, folder: Path, purpose: Purpose) -> nn.Module:
        config = _config(folder, purpose)
        with torch.device("meta"), _opening(folder):
            model: nn.Module = _class(config, purpose)._from_config(config)
            return model

    def names(self, model: Any, stored: Iterable[str]) -> dict[str, Stored]:
        """Return names by transformers' own table of renamed weights, so that old files are read too."""
        from transformers.conversion_mapping import get_model_conversion_mapping
        from transformers.core_model_loading import WeightConverter, rename_source_key

        own = dict(model.named_parameters()) | {
            name: buffer for name, buffer in model.named_buffers() if name in model.state_dict()
        }
        changes = get_model_conversion_mapping(model)
        kinds: tuple[list[Any], list[Any]] = ([], [])
        for change in changes:
            kinds[isinstance(change, WeightConverter)].append(change)
        tied = getattr(model, "all_tied_weights_keys", None) or {}
        found: dict[str, Stored] = {}
        stacks: dict[str, dict[tuple[int, int], str]] = defaultdict(dict)
        for key in stored:
            renamed, converted = rename_source_key(key, *kinds, model.base_model_prefix, own)
            if converted is not None and (place := _in_stack(key, converted, kinds[1])) is not None:
                stacks[renamed][place] = key
                continue
            for part, name in _parts(model, key, renamed, converted, kinds[1]):
                if tied.get(name, name) in own:
                    found.setdefault(tied.get(name, name), Stored(key, part))
        return found | {name: _stack(name, parts) for name, parts in stacks.items() if name in own}

    def load(
        self,
        folder: Path,
        device: str,
        purpose: Purpose,
        dtype: torch.dtype | None = torch.float32,
        *,
        state: Tensors | None = None,
        feeds: Path | None = None,
    ) -> Loaded:
        config, place = _config(folder, purpose), {} if state is None else {"state_dict": dict(state)}
        with _opening(folder):
            model = _class(config, purpose).from_pretrained(
                folder if state is None else None,
                config=config,
                dtype=dtype or "auto",
                use_safetensors=True,
                ignore_mismatched_sizes=True,
                **place,
            )
        seeing = purpose.kind is PurposeKind.IMAGE_TEXT
        tokenizer, processor = (
            next(filter(None, (each(at) for at in (feeds, folder) if at)), None)
            for each in (
                partial(tokenizer_in, spaced=purpose.kind is PurposeKind.TOKEN_CLASSES),
                partial(_processor, both=seeing),
            )
        )
        if seeing and processor is not None:
            tokenizer = processor.tokenizer
        preprocess = None if seeing or processor is None else _preprocess(processor)
        side = Loaded(model.to(device).eval(), preprocess, tokenizer, processor)
        if purpose.kind.hears:
            side.ear = ear_in(folder)
        if purpose.kind is PurposeKind.SPEECH and feeds is not None:  # every model writes with tokens of its own
            side.tokenizer = tokenizer = speak_like(tokenizer_in(folder) or tokenizer, tokenizer_in(feeds))
        if tokenizer is not None:
            with _opening(folder):  # a tokenizer's config may say anything
                suit_tokenizer(tokenizer, model, classifies=purpose.kind is PurposeKind.TEXT_CLASSES)
        return side

    def write(self, stage: Path, model: Any, base: Path, tensors: Iterable[tuple[str, Tensor]]) -> None:
        state = dict(tensors)
        sizes: Counter[torch.dtype] = Counter()
        for tensor in state.values():
            sizes[tensor.dtype] += tensor.numel()
        model.config.dtype = sizes.most_common(1)[0][0]
        with _opening(base):
            model.save_pretrained(stage, state_dict=state)

    def snippet(self, repo: str, purpose: Purpose) -> str:
        if purpose.kind is PurposeKind.ZERO_SHOT:
            task = self.task_type(purpose)
            return f'from transformers import pipeline\n\nclassify = pipeline("{task}", "{repo}")'
        if purpose.kind is PurposeKind.FEATURES:
            return (
                "from transformers import AutoModel, AutoTokenizer\n\n"
                f'model = AutoModel.from_pretrained("{repo}")\n'
                f'tokenizer = AutoTokenizer.from_pretrained("{repo}")'
            )
        auto = next(auto for kind, auto in KINDS.values() if kind == purpose.kind)
        feeder = FEEDERS.get(purpose.kind, "AutoTokenizer")
        return (
            f'from transformers import {feeder}, {auto}\n\nmodel = {auto}.from_pretrained("{repo}")\n'
            f'{"processor" if feeder != "AutoTokenizer" else "tokenizer"} = {feeder}.from_pretrained("{repo}")'
        )

    def task_type(self, purpose: Purpose) -> str:
        return TASKS[purpose.kind]

    def general_prompts(self) -> tuple[str, ...]:
        """Return prompts with ImageNet's class names, as open_clip keeps them."""
        from open_clip import IMAGENET_CLASSNAMES

        return tuple(f"a photo of a {name}." for name in IMAGENET_CLASSNAMES)

    def image_features(self, model: Any, images: Tensor) -> Tensor:
        return F.normalize(_pooled(model.get_image_features(pixel_values=images)), dim=-1)

    def text_features(self, model: Any, ids: Tensor) -> Tensor:
        return F.normalize(_pooled(model.get_text_features(input_ids=ids)), dim=-1)

    def tokens(self, loaded: Loaded, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Return ids and mask (n, T) at the text tower's full length; SigLIP's tower reads padding, CLIP's does not."""
        config: Any = loaded.model.config
        got = loaded.tokenizer(
            list(texts),
            padding="max_length",
            truncation=True,
            max_length=config.text_config.max_position_embeddings,
            return_attention_mask=True,
            return_tensors="pt",
        )
        reads_all = config.model_type == "siglip"
        return got["input_ids"], got["attention_mask"].bool() | reads_all


def _in_stack(key: str, converted: str, converters: Sequence[Any]) -> tuple[int, int] | None:
    """Return (expert, number of its part) of a stored tensor that transformers puts on a stack; None of any other."""
    change = next(each for each in converters if converted in each.source_patterns)
    kinds = [(type(op).__name__, getattr(op, "dim", None)) for op in change.operations]
    parts, number = len(change.source_patterns), re.search(re.escape(converted).replace(r"\*", r"(\d+)"), key)
    if (
        kinds != [("MergeModulelist", 0), ("Concatenate", 1)][: 1 + (parts > 1)]
        or number is None
        or not number.groups()
    ):
        return None
    return int(number[1]), change.source_patterns.index(converted)


def _stack(name: str, parts: Mapping[tuple[int, int], str]) -> Stored:
    """Return where a stack lies, whose parts are stored by (expert, number of the part).

    Raises:
        PortError: parts of an expert are not stored.
    """
    experts, kinds = (range(1 + max(at[side] for at in parts)) for side in (0, 1))
    if missing := [f"{expert}" for expert in experts if any((expert, kind) not in parts for kind in kinds)]:
        raise PortError(
            f"the weights lack parts of {name}: those of the experts {listed(missing)}; save the model again"
        )
    rows = tuple(tuple(parts[expert, kind] for kind in kinds) for expert in experts)
    return Stored(rows[0][0], stack=rows)


def _parts(
    model: nn.Module, key: str, name: str, converted: str | None, converters: Sequence[Any]
) -> list[tuple[tuple[int, int], str]]:
    """Return (part of the stored tensor, name in the model): one, or those that a fused tensor is cut into.

    Raises:
        PortError: transformers converts the stored tensor in a way that this version does not know.
    """
    if converted is None:
        return [((0, 1), name)]
    change = next(each for each in converters if converted in each.source_patterns)
    kinds = [(type(op).__name__, getattr(op, "dim", None)) for op in change.operations]
    if kinds != [("Chunk", 0)]:
        raise PortError(f"{key} is stored in another layout than a {type(model).__name__} has in memory; not supported")
    targets = change.target_patterns
    return [((i, len(targets)), name.replace(targets[0], target)) for i, target in enumerate(targets)]


def _pooled(features: Any) -> Tensor:
    return features if isinstance(features, Tensor) else features.pooler_output


def _config(folder: Path, purpose: Purpose | None = None) -> Any:
    from transformers import AutoConfig

    _require_built_in(folder)
    given = {"num_labels": len(purpose.labels)} if purpose and purpose.labels else {}
    with _opening(folder):
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False, **given)
    if hasattr(config, "quantization_config"):  # a merged QLoRA still says so; quantised weights are refused before
        del config.quantization_config
    for key, value in purpose.config.items() if purpose else ():
        setattr(config, key, value)
    parts = [config, *(part for name in config.sub_configs if (part := getattr(config, name, None)) is not None)]
    if not {part._attn_implementation for part in parts} <= KERNELS:
        config._attn_implementation = None  # what its author computed attention with is no part of a model
    return config


def _require_built_in(folder: Path) -> None:
    """Refuse a model that runs code of its own repo.

    Raises:
        PortError: transformers has no model of its type.
    """
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

    try:
        said = json.loads((folder / Transformers.config_file).read_text(encoding="utf-8"))
        kind, code = said.get("model_type"), said.get("auto_map")
    except (OSError, ValueError, AttributeError):
        return  # transformers says what is wrong with it
    if code and kind not in CONFIG_MAPPING_NAMES:
        raise PortError(
            f"a {kind or 'model'} is run by code of its own repo (auto_map), which is never done here: only types that "
            "transformers has built in can be ported"
        )


def _class(config: Any, purpose: Purpose) -> Any:
    """Return the source's class where the model is of its type, else the class that opens it for the same purpose.

    Raises:
        PortError: there is none.
    """
    import transformers

    own = getattr(transformers, purpose.architecture or "", None)
    if own is not None and getattr(own, "config_class", None) is type(config):
        return own
    auto = (
        "AutoModel"
        if purpose.kind is PurposeKind.ZERO_SHOT
        else next(a for kind, a in KINDS.values() if kind == purpose.kind)
    )
    mapping = getattr(transformers, auto)._model_mapping
    if type(config) not in mapping:
        raise PortError(f"transformers has no {config.model_type} for {purpose.kind}")
    if purpose.kind is PurposeKind.FEATURES and config.model_type in CONTRASTIVE:
        raise PortError(f"a {config.model_type} of two towers is not a feature model: name one tower's repo")
    found = mapping[type(config)]
    return found[0] if isinstance(found, tuple | list) else found


def _processor(folder: Path, *, both: bool = False) -> Any:
    """Return a repo's processor of images, or with `both` that of images and texts; None if it cannot be opened."""
    import transformers

    auto: Any = transformers.AutoProcessor if both else transformers.AutoImageProcessor
    try:
        found = auto.from_pretrained(folder, trust_remote_code=False)
    except ImportError as error:  # SmolVLM's asks for num2words
        raise PortError(f"its processor cannot be opened: {reason(error)}") from error
    except Exception:
        return None
    whole = hasattr(found, "image_processor") and hasattr(found, "tokenizer")  # else a tokenizer alone
    return found if whole or not both else None


def _preprocess(processor: Any) -> Any:
    return lambda image: processor(images=image, return_tensors="pt")["pixel_values"][0]


def tokenizer_in(folder: Path, *, spaced: bool = False) -> Any:
    """Return a repo's tokenizer; None if it cannot be opened.

    Args:
        spaced: whether a word on its own gets the space before it that it has in a text, as GPT-2's kind asks for.
    """
    from transformers import AutoTokenizer

    try:
        found = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
        if spaced and getattr(found, "add_prefix_space", None) is False:
            return AutoTokenizer.from_pretrained(folder, trust_remote_code=False, add_prefix_space=True)
        return found
    except Exception:  # tokenizers' own errors have no other class
        return None


@contextmanager
def _opening(folder: Path) -> Iterator[None]:
    """Turn transformers' errors into one line, and silence its log and its bars, while the block runs."""
    from huggingface_hub.utils import are_progress_bars_disabled
    from transformers.utils import logging as transformers_logging

    bars: Any = transformers_logging  # not typed
    logger = logging.getLogger("transformers")
    before, shown = logger.level, bars.is_progress_bar_enabled() and not are_progress_bars_disabled()
    logger.setLevel(logging.ERROR)
    bars.disable_progress_bar()
    try:
        yield
    except PortError:
        raise
    except Exception as error:  # whatever it makes of a config that it does not take
        raise PortError(f"transformers cannot open the model: {reason(error)}") from error
    finally:
        logger.setLevel(before)
        if shown:
            bars.enable_progress_bar()
