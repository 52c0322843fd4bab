"""Ways to carry a task vector over, one file each, behind one protocol."""

from hf_bico.core.methods.bico import BiCo
from hf_bico.core.methods.naive import Naive
from hf_bico.core.methods.protocol import Method

METHODS: dict[str, type[Method]] = {method.name: method for method in (BiCo, Naive)}

__all__ = ["METHODS", "BiCo", "Method", "Naive"]
