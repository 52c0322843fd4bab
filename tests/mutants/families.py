"""Wrong tables of families, each with the law that must notice it."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

from support.family_laws import (
    accounted_for,
    alike_inputs_share_a_space,
    attention_takes_q_k_v,
    hidden_coordinates_can_be_permuted,
    rows_lie_as_said,
    up_is_linear_and_gate_is_not,
)
from support.family_twins import CASES

from hf_bico import families
from hf_bico.families.layout import HEAD, FamilyLayout, Layer
from hf_bico.families.tables.vit import VIT
from tests.mutants.mutant import Mutant


def changed(role: str, **changes) -> Callable[[FamilyLayout], FamilyLayout]:
    """A table with a layer changed, wherever it stands."""

    def change(anatomy: FamilyLayout) -> FamilyLayout:
        return _with_layers(anatomy, lambda layer: replace(layer, **changes) if layer.role == role else layer)

    return change


def _with_layers(anatomy: FamilyLayout, change: Callable[[Layer], Layer | None]) -> FamilyLayout:
    towers = tuple(
        replace(tower, layers=tuple(new for layer in tower.layers if (new := change(layer))), required=())
        for tower in anatomy.towers
    )
    return replace(anatomy, towers=towers)


def swapped(a: str, b: str) -> Callable[[FamilyLayout], FamilyLayout]:
    names = {a: b, b: a}
    return lambda anatomy: _with_layers(anatomy, lambda layer: replace(layer, role=names.get(layer.role, layer.role)))


def dropped(role: str) -> Callable[[FamilyLayout], FamilyLayout]:
    return lambda anatomy: _with_layers(anatomy, lambda layer: None if layer.role == role else layer)


def with_heads(path: str) -> Callable[[FamilyLayout], FamilyLayout]:
    def change(anatomy: FamilyLayout) -> FamilyLayout:
        gives = {"q": "qk", "k": "qk", "v": "v"}
        anatomy = _with_layers(
            anatomy,
            lambda layer: replace(
                layer,
                gives=layer.gives or gives.get(layer.role, ""),
                uses="v" if layer.role == "attention output" else layer.uses,
            ),
        )
        return replace(anatomy, towers=tuple(replace(tower, heads=path) for tower in anatomy.towers))

    return change


class Untransposed(FamilyLayout):
    """Conv1D taken for a linear layer."""

    def sites(self, model, *, every=False):
        return tuple(replace(site, weight=replace(site.weight, transposed=False)) for site in super().sites(model))


WRONG = [
    ("vit", swapped("q", "k"), attention_takes_q_k_v),
    ("timm", swapped("q", "v"), attention_takes_q_k_v),
    ("gpt2", changed("v", part=(1, 3)), accounted_for),
    ("modernbert", swapped("k", "v"), attention_takes_q_k_v),
    ("modernbert", swapped("MLP gate", "MLP up"), up_is_linear_and_gate_is_not),
    ("t5-gated", swapped("MLP gate", "MLP up"), up_is_linear_and_gate_is_not),
    ("timm-packed", swapped("MLP gate", "MLP up"), up_is_linear_and_gate_is_not),
    ("dinov2", dropped("MLP up"), accounted_for),
    ("llama", dropped("MLP gate"), accounted_for),
    ("bert", dropped("v"), accounted_for),
    ("gpt2", lambda anatomy: Untransposed(**vars(anatomy)), accounted_for),
    ("gpt2-classifier", lambda anatomy: replace(anatomy, head=(Layer(HEAD, "score"),)), rows_lie_as_said),
    ("t5", changed("cross v", tokens=None), rows_lie_as_said),
    ("deit", lambda anatomy: VIT, rows_lie_as_said),
    (
        "mpnet",
        lambda anatomy: replace(anatomy, towers=tuple(replace(t, one_order=False) for t in anatomy.towers)),
        hidden_coordinates_can_be_permuted,
    ),
    ("mpnet", dropped("attention output"), accounted_for),
    ("distilbert", changed("attention output", reads="attention"), alike_inputs_share_a_space),
    ("llama", changed("MLP up", reads="attention"), alike_inputs_share_a_space),
    ("t5", changed("cross k", reads="cross attention"), alike_inputs_share_a_space),
    ("qwen2", changed("v", reads="values"), alike_inputs_share_a_space),
    ("vit", changed("k", gives=""), hidden_coordinates_can_be_permuted),
    ("mistral", changed("MLP gate", gives=""), hidden_coordinates_can_be_permuted),
    ("clip-vision", changed("MLP down", uses=""), hidden_coordinates_can_be_permuted),
    ("modernbert", with_heads("attn.config.num_attention_heads"), hidden_coordinates_can_be_permuted),
    ("timm-rotary", with_heads("attn.num_heads"), hidden_coordinates_can_be_permuted),
    (
        "t5",
        lambda anatomy: replace(anatomy, towers=tuple(replace(t, one_order=False) for t in anatomy.towers)),
        hidden_coordinates_can_be_permuted,
    ),
]


def judged(law: Callable, name: str) -> None:
    """Check a law of the table of a tiny model's family."""
    case = CASES[name]
    model = case.build()
    found = next(law(families.family_of(model), model, case), None)
    assert not found, found


def of_a_law(name: str, change: Callable[[FamilyLayout], FamilyLayout], law: Callable) -> Mutant:
    """Return a mutant of the table of a tiny model's family, that a law must notice."""
    return Mutant(
        families, "family_of", lambda right: lambda model: change(right(model)), (partial(judged, law, name),)
    )


MUTANTS = {f"table {number} of {name}": of_a_law(name, change, law) for number, (name, change, law) in enumerate(WRONG)}
