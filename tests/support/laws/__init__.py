"""What must hold of every right implementation, as functions that assert it; the mutants must break them.

`LAWS` says which law holds for which method. What the methods see is collected once a pair of models and shared.
"""

from collections.abc import Callable

from support.laws.brute_force import brute_force_finds_the_same
from support.laws.models import METHODS
from support.laws.parts import filling_leaves_what_is_determined, free_maps_are_scipys, tokens_meet_on_the_finer_grid
from support.laws.same_function import (
    own_base_gives_the_step_back,
    own_base_projects,
    permutations_are_followed,
    rotations_are_followed,
    same_function_same_fine_tune,
)
from support.laws.sampling import (
    batch_size_changes_nothing,
    gradients_are_autograds,
    labels_are_not_looked_at,
    noise_changes_nothing,
    streamed_is_one_shot,
    threads_change_nothing,
)
from support.laws.single_methods import (
    a_heavy_ridge_is_bico,
    answers_come_nearer,
    batches_do_not_matter,
    kept_entries_descend,
    kept_entries_have_a_majority,
    nothing_responds_to_nothing,
    responses_are_reproduced,
    steps_are_adams,
    steps_are_ports_of_parts,
)
from support.laws.unrelated import factors_move_alone, norms_and_angles_are_kept, plain_numpy_agrees, there_and_back

BICO = ("bico", "weighted", "bico, label-free", "bico, filled", "bico, centred")
TWO_SIDED = (*BICO, "theseus", "theseus, centred", "gradient-only")
ONE_SIDED = ("input-only", "output-only")
RESPONSE = ("response", "response, auto", "response, views")
MASKS = ("gradfix", "gradfix, vote")
SAMPLED = ("bico", "weighted", "bico, label-free", "bico, filled", "theseus", "gradient-only", *ONE_SIDED, *MASKS)

LAWS: dict[Callable, tuple[str, ...]] = {
    own_base_gives_the_step_back: (
        "bico",
        "weighted",
        "bico, label-free",
        "bico, filled",
        "transfusion",
        "gradfix",
        "naive",
        *ONE_SIDED,
    ),
    own_base_projects: (*TWO_SIDED, *ONE_SIDED, *MASKS, "transfusion", "naive"),
    rotations_are_followed: (*TWO_SIDED, *RESPONSE),
    permutations_are_followed: (*TWO_SIDED, "transfusion", *RESPONSE),
    same_function_same_fine_tune: ("bico", "weighted", "bico, label-free", "bico, filled", "transfusion", *RESPONSE),
    there_and_back: (*TWO_SIDED, "naive"),
    norms_and_angles_are_kept: (*TWO_SIDED, *ONE_SIDED, "transfusion", "naive"),
    factors_move_alone: (*TWO_SIDED, *ONE_SIDED, "transfusion", "naive"),
    plain_numpy_agrees: (
        "bico",
        "weighted",
        "bico, filled",
        "bico, centred",
        "theseus",
        "theseus, centred",
        "gradient-only",
        *ONE_SIDED,
    ),
    batch_size_changes_nothing: SAMPLED,
    threads_change_nothing: ("bico", "theseus"),  # small matrices on several threads are slow
    noise_changes_nothing: SAMPLED,
    labels_are_not_looked_at: ("bico, label-free",),
    kept_entries_descend: ("gradfix",),
    kept_entries_have_a_majority: ("gradfix, vote",),
    steps_are_ports_of_parts: ("bico, two steps",),
    steps_are_adams: ("few-shot",),
    answers_come_nearer: ("distil",),
    a_heavy_ridge_is_bico: ("response, far",),
    batches_do_not_matter: (*RESPONSE, "blend", "distil"),
    nothing_responds_to_nothing: (*RESPONSE, "blend"),
    responses_are_reproduced: ("response, light",),
    brute_force_finds_the_same: ("transfusion",),
    streamed_is_one_shot: (),
    gradients_are_autograds: (),
    free_maps_are_scipys: (),
    filling_leaves_what_is_determined: (),
    tokens_meet_on_the_finer_grid: (),
}


def check(law: Callable, name: str | None) -> None:
    """Runs a law for the method of this name, or for none."""
    law(METHODS[name]) if name else law()
