"""Whether a model's config can be that of its weights, told by their header before anything is built of it.

A config that says a million blocks, or blocks a million wide, would have its library work for hours, or take all
memory, before it is seen that the weights are of another model.
"""

import re
import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from math import prod
from typing import Any

from torch import nn
from torch.nn.modules import module as hooks

from hf_bico.core.errors import PortError
from hf_bico.io.outside import kind_of

COUNTS = re.compile(r"(layers?|blocks|depths?|experts|stages)$|^n_(layer|head)$")
"""Names of settings that say how often something is repeated."""
SIZES = re.compile(
    r"(num_)?(hidden|encoder|decoder|n|num|kv|q)?_?(layers?|heads)|(num_)?(hidden|encoder|decoder)_layers|"
    r"(num_|encoder_|decoder_)?(attention|key_value)_heads|width|head_width|hidden_sizes?|intermediate_size|"
    r"vocab_size|image_size|patch_size|num_channels|context_length|embed_dim|d_model|d_ff|d_kv|n_embd|n_positions|"
    r"n_(layer|head)|max_position_embeddings|num_hidden_layers|num_(attention|key_value)_heads|head_dim|dim|hidden_dim"
)
"""Names of settings that are a whole number of at least 1, or a list of some, where they are given at all."""
PARTS = re.compile(r"(vision|text|audio)_(cfg|config)|model_cfg|preprocess_cfg|\w+_kwargs")
"""Names of settings that are objects, where they are given at all."""
MEANS = re.compile(r"(image_)?(mean|std)")
"""Names of settings that are a number of every colour."""
EPSILON = re.compile(r"(\w+_)?eps(ilon)?")
"""Names of settings that are a small number."""
FEW, SMALL = 1_000, 1 << 30
"""Repetitions and elements that are never too many."""
SECONDS = 120
"""How long a library may take to build a model of a config, without weights."""


def require_sound(config: Mapping[str, Any], name: str, tensors: int | None = None) -> None:
    """Refuse a config whose sizes are none, or more than its weights have tensors for.

    Args:
        name: the file's.
        tensors: how many its weights have; None where that is not known.

    Raises:
        PortError: a setting is of another kind than it must be, zero, negative or far too large.
    """
    for path, key, value in _settings(config):
        if PARTS.fullmatch(key) and not isinstance(value, Mapping | None):
            raise PortError(f"{name}: {path} is {kind_of(value)}, where an object {{…}} belongs")
        numbers = value if isinstance(value, list) else [value]
        if SIZES.fullmatch(key) and value is not None and not all(map(_is_size, numbers)):
            raise PortError(f"{name}: {path} is {_short(value)}, where a whole number of at least 1 belongs")
        if MEANS.fullmatch(key) and value is not None and not _is_of_colours(value, above="std" in key):
            raise PortError(f"{name}: {path} is {_short(value)}, where a number of each of the 3 colours belongs")
        if EPSILON.fullmatch(key) and value is not None and not (_is_number(value) and 0 <= value < 1):
            raise PortError(f"{name}: {path} is {_short(value)}, where a small number such as 1e-5 belongs")
        most = max(FEW, tensors or 0)
        whole = [each for each in numbers if isinstance(each, int)]
        if COUNTS.search(key) and tensors is not None and max(whole, default=0) > most:
            raise PortError(
                f"{name}: {path} is {_short(value)}, and its weights have {tensors} tensors: the config is of another "
                "model"
            )
        if max(whole, default=0) > 2**40 and not key.endswith("length"):
            raise PortError(f"{name}: {path} is {_short(value)}, which is no size of a model")


def _settings(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str, Any]]:
    """Yield (path, name, value) of all settings, of those within others too."""
    for key, value in config.items():
        yield f"{prefix}{key}", str(key), value
        if isinstance(value, Mapping):
            yield from _settings(value, f"{prefix}{key}.")


def _is_size(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_of_colours(value: Any, *, above: bool) -> bool:
    """Return whether a value is a number, or one of every colour; with `above` all must be above 0."""
    each = value if isinstance(value, list) else [value]
    return len(each) in (1, 3) and all(_is_number(x) and (x > 0 or not above) for x in each)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:40]}…"


@contextmanager
def within(stored: Mapping[str, Any]) -> Iterator[None]:
    """Refuse, while the block builds a model, one that is far larger than its weights, or that takes too long.

    Args:
        stored: the weights: name → anything with the tensor's `shape`.

    Raises:
        PortError: it has many times their modules or elements.
    """
    parts, room = 20_000 + 50 * len(stored), SMALL + 4 * sum(prod(each.shape) for each in stored.values())
    thread, seen = threading.get_ident(), {"parts": 0, "elements": 0}

    def count(module: nn.Module, name: str, part: Any) -> None:
        if threading.get_ident() != thread or part is None:
            return
        seen["parts"] += 1
        seen["elements"] += part.numel() if isinstance(part, nn.Parameter) else 0
        if seen["parts"] > parts or seen["elements"] > room:
            raise PortError("its config says a model many times as large as its weights: they do not fit")

    handles = (
        hooks.register_module_module_registration_hook(count),
        hooks.register_module_parameter_registration_hook(count),
    )
    try:
        with _clock():
            yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def _clock() -> Iterator[None]:
    """Stop the block after `SECONDS`; without a clock where another has one, or in another thread than the first."""
    main = threading.current_thread() is threading.main_thread() and hasattr(signal, "setitimer")
    if not main or signal.getitimer(signal.ITIMER_REAL)[0]:
        yield
        return

    def ring(number: int, frame: object) -> None:
        raise PortError(f"no model can be built of its config within {SECONDS} s: is it that of its weights?")

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
