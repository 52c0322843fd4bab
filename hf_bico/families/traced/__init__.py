"""Models of no table: what their layers do is read off a traced forward pass of a tiny copy, and checked on it."""

from hf_bico.families.traced.family import Traced

__all__ = ["Traced"]
