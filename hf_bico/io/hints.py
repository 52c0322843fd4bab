"""What may have been meant by the name of a repo that is not there, and what a repo is that is no model."""

from collections.abc import Collection
from contextlib import contextmanager, suppress
from difflib import get_close_matches
from itertools import islice
from pathlib import Path

from huggingface_hub import HfApi
from huggingface_hub import errors as hub_errors

from hf_bico.io.commits import UNREADABLE

OTHER = {"model": "dataset", "dataset": "model"}
LOOKED_AT = 500
"""How many of an owner's repos are looked at for a name like the one given."""


@contextmanager
def hinting(api: HfApi, name: str, kind: str):
    """Add a hint to the error of the block if a repo is not found."""
    try:
        yield
    except hub_errors.GatedRepoError:
        raise
    except hub_errors.RepositoryNotFoundError as error:
        if not isinstance(error, hub_errors.RevisionNotFoundError):
            setattr(error, "hint", hint(api, name, kind))  # noqa: B010
        raise


def hint(api: HfApi, name: str, kind: str) -> str:
    """Return what may have been meant by a name, as a part of a sentence; "" if nothing is like it."""
    if "/" in name and Path(name.split("/")[0]).is_dir():
        return f", and there is no folder {name} here"
    with suppress(hub_errors.HTTPError, hub_errors.HFValidationError, *UNREADABLE):
        if api.repo_exists(name, repo_type=OTHER[kind]):
            return f", but there is a {OTHER[kind]} of that name, and a {kind} belongs here"
        if "/" in name:
            owner = name.split("/")[0]
            found = api.list_models(author=owner) if kind == "model" else api.list_datasets(author=owner)
            there = [str(each.id) for each in islice(found, LOOKED_AT)]  # type: ignore[attr-defined]
            if near := get_close_matches(name, there, n=1, cutoff=0.75):
                return f"; is it {near[0]}?"
    return ""


def said_of(files: Collection[str]) -> str:
    """Return what a repo is that no library here opens, and the way out; "" if its files do not tell."""
    ends = {name.rsplit(".", 1)[-1] for name in files}
    if "model_index.json" in files:
        return "is a pipeline of diffusers (model_index.json), which is no model that can be ported: name one of a task"
    for end, what in {"msgpack": "Flax", "h5": "TensorFlow", "onnx": "ONNX", "tflite": "TensorFlow Lite"}.items():
        if end in ends and "safetensors" not in ends:
            return f"has weights of {what} alone: open it in PyTorch, save it as safetensors, and name that folder"
    if ends & {"parquet", "jsonl", "csv", "arrow"} and "safetensors" not in ends:
        return "holds data and no model: name it as the dataset"
    return ""
