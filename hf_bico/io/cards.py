"""What a card's metadata says that is used here: the base model and the licence."""

from typing import Any, NamedTuple

from huggingface_hub.repocard import REGEX_YAML_BLOCK

from hf_bico.core.errors import PortError
from hf_bico.io.outside import kind_of, parse_yaml

CARD = "README.md"


class Card(NamedTuple):
    """The metadata of a card that is used; each is a name, a list of names, or something else that its owner wrote."""

    base_model: Any = None
    license: Any = None
    language: Any = None
    new_version: Any = None


def card_of(text: str, name: str) -> Card:
    """Return what a card says.

    Args:
        text: of its README.md.
        name: what to call it in errors.

    Raises:
        PortError: its YAML cannot be read; see `metadata_of`.
    """
    data = metadata_of(text, name)
    return Card(*(data.get(name) for name in Card._fields))


def metadata_of(text: str, name: str) -> dict[Any, Any]:
    """Return the YAML before a card's text; empty where there is none.

    Raises:
        PortError: it is no mapping, no YAML, or too large or too deep.
    """
    found = REGEX_YAML_BLOCK.search(text)
    data = parse_yaml(found[2], f"the header of {name}") if found else {}
    if data is not None and not isinstance(data, dict):
        raise PortError(f"the header of {name} is {kind_of(data)}, where lines of key: value belong")
    return data or {}
