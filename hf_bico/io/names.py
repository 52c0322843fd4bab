"""Which stored tensor is which of a model's, also where a wrapper left its mark on the names."""

import re
from collections.abc import Collection, Iterable, Mapping

from torch import nn

from hf_bico.core.notes import note
from hf_bico.families.protocol import Library, Stored
from hf_bico.io.adapter import PREFIX
from hf_bico.io.checkpoints import Named

WRAPPERS = re.compile(
    r"(?:(?<=\.)|^)(?:module|_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module|_forward_module)\."
)
"""What DistributedDataParallel, torch.compile, FSDP, activation checkpointing and Lightning put into names."""
OUTER = re.compile(r"^(?:base_model\.model\.|model\.|net\.)")
"""What PEFT's outer model and trainers' modules put before them."""
_ADAPTER = re.compile(r"(?<=\.lora_[AB])\.default(?=\.)|(?<=\.lora_magnitude_vector)\.default(?=\.)")
"""The adapter's own name, which the state dict of a live model has in its names."""


def unwrapped(key: str, more: int = 0) -> str:
    """Return a tensor's name without the marks of wrappers, and without up to `more` outer prefixes."""
    found = WRAPPERS.sub("", key)
    for _ in range(more):
        found = OUTER.sub("", found, count=1)
    return found


def names_in(library: Library, model: nn.Module, stored: Collection[str], what: str) -> tuple[dict[str, Stored], bool]:
    """Return {name in the model: where it lies in the files}, and whether marks of a wrapper were taken off for that.

    Marks are taken off only where more names of the model are found without them, and that is said.

    Args:
        stored: names in the files.
        what: what to call the model.
    """
    best, marks = library.names(model, stored), ""
    wanted = {name for name, _ in model.named_parameters()}
    for more in range(3):
        if wanted <= best.keys():
            break
        plain = _by_plain_name(stored, more)
        if plain.keys() == set(stored):
            continue
        found = {name: at.renamed(plain.__getitem__) for name, at in library.names(model, plain).items()}
        if len(wanted & found.keys()) > len(wanted & best.keys()):
            best, marks = found, _marks(plain)
    if marks:
        note(f"the names of the tensors of {what} have {marks} before them, which a wrapper left there: read without")
    return best, bool(marks)


def adapter_names(stored: Mapping, what: str) -> Mapping:
    """Return an adapter's tensors by the names that PEFT gives them, without the marks of wrappers; that is said.

    Args:
        stored: its tensors, or anything with their shapes, by their names in the file.
        what: what to call the adapter.
    """
    plain = {_peft_name(key): key for key in stored}
    if all(name == key for name, key in plain.items()):
        return stored
    note(f"the names of the tensors of {what} are not as PEFT writes them: read as {next(iter(plain))!r} and the like")
    return Named(stored, {name: Stored(key) for name, key in plain.items()})


def _peft_name(key: str) -> str:
    name = _ADAPTER.sub("", WRAPPERS.sub("", key))
    return name if name.startswith(PREFIX) else PREFIX + name


def _by_plain_name(stored: Iterable[str], more: int) -> dict[str, str]:
    """Return {name without marks: name in the files}."""
    return {unwrapped(key, more): key for key in stored}


def _marks(plain: dict[str, str]) -> str:
    """Return what was taken off, as one of the names had it."""
    name, key = next((name, key) for name, key in plain.items() if name != key)
    return repr(key.removesuffix(name) if key.endswith(name) else ", ".join(dict.fromkeys(WRAPPERS.findall(key))))
