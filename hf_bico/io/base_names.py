"""Which base a source says that it was made from."""

import re
from pathlib import Path

from hf_bico.core.errors import PortError, setting
from hf_bico.core.notes import note
from hf_bico.families import library_of
from hf_bico.io.adapter import CONFIG, AdapterConfig, is_adapter
from hf_bico.io.checkpoints import gguf, inside
from hf_bico.io.hub import Hub
from hf_bico.io.reference import Pinned, errors_about

COPY = re.compile(r"(.+?)(-unsloth)?-bnb-4bit")
"""Names of copies of 4 bits, made for training on them."""
_REPO = re.compile(r"[\w.-]+(/[\w.-]+)?")


def base_of(source: Pinned, hub: Hub, beside: Pinned | None = None) -> str:
    """Return the base that the source's adapter_config.json (with its revision) or else its card names.

    Args:
        beside: the folder that the source is in, with whatever else it holds: of an adapter there the base is taken,
            if nothing else names one.

    Raises:
        PortError: none is named, or several are.
    """
    if is_adapter(source):
        with errors_about(source):
            config = AdapterConfig.read(hub.fetch(source, (CONFIG,)), source.files)
        if config.base:
            return _base_named(source, config.base, config.revision)
    elif library_of(source.files) is None and (gguf(source) or inside(source)):
        raise PortError(gguf(source) or f"{source} holds no model itself{inside(source)}")
    named = hub.card(source).base_model
    names = [name for name in (named if isinstance(named, list) else [named]) if isinstance(name, str) and name]
    if not names and beside is not None and CONFIG in beside.files:
        config = AdapterConfig.read(hub.fetch(beside, (CONFIG,)), beside.files)
        if config.base:
            name = Path(config.base).name if Path(config.base).is_dir() else config.base  # cards tell no paths
            note(f"the card of {source} names no base model: that of the adapter beside it is taken, {name}")
            return _base_named(source, config.base, config.revision)
    if len(names) != 1:
        what = "names no base_model" if not names else f"names several base models ({', '.join(names)})"
        raise PortError(f"the card of {source} {what}: say which model it was fine-tuned from with {setting('base')}")
    if COPY.fullmatch(names[0]) or not _REPO.fullmatch(names[0]):
        return _base_named(source, names[0])
    return f"hf://{names[0]}"


def _base_named(source: Pinned, base: str, revision: str | None = None) -> str:
    """Return a reference to the base that a source names: a folder of this machine, or a repo.

    Raises:
        PortError: it is a folder of another machine, or a copy of 4 bits.
    """
    if Path(base).is_dir():
        if revision:
            note(f"the base of {source} is a folder, which has no revision {revision!r}: that is ignored")
        return base
    if copy := COPY.fullmatch(base):
        raise PortError(
            f"{source} was trained on {base}, which is quantised (bitsandbytes, 4 bits): name the full model that it "
            f"was made from with {setting('base')}, such as {copy[1]}"
        )
    if _REPO.fullmatch(base):
        return base + (f"@{revision}" if revision else "")
    raise PortError(
        f"{source} was trained on {base}, a folder that is not on this machine: name that model with {setting('base')}"
    )
