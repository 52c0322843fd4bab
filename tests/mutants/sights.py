"""Wrong tasks of images with texts: rows that meet elsewhere, what is asked, what is left behind."""

import torch

from hf_bico.core.collect import samples_in
from hf_bico.families import patches, sights
from hf_bico.families.traced import places
from hf_bico.tasks import parts
from hf_bico.tasks import sights as rows
from tests.mutants.changes import given, instead, of_tests, then

GO_IN = "tests/families/test_sights.py::test_"
READ = "tests/tasks/test_sight_rows.py::test_"

MUTANTS = {
    "patches in reading order where they are merged": of_tests(
        patches,
        "_merged_order",
        then(lambda order: order.sort().values),
        f"{GO_IN}patches_meet_by_place_in_the_order_in_which_they_are_merged",
    ),
    "images that meet as a whole": of_tests(
        patches,
        "_of_image",
        lambda right: lambda x, y: torch.full((y.tokens, x.tokens), 1 / x.tokens),
        f"{GO_IN}rows_of_images_meet_by_place_and_those_of_texts_by_characters",
    ),
    "an image as wide as its tokens in the text": of_tests(
        sights,
        "places",
        given(lambda tokens, parts, length: (tokens, [part._replace(width=None) for part in parts], length)),
        f"{GO_IN}rows_of_images_meet_by_place_and_those_of_texts_by_characters",
    ),
    "a prompt about an image that is asked for": of_tests(
        sights,
        "_templated",
        given(lambda processor, template, turns, first, number: (processor, template, turns, 0, number)),
        f"{GO_IN}a_chat_is_asked_for_all_that_the_assistant_says_and_a_prompt_for_nothing",
    ),
    "an answer about an image without its end": of_tests(
        sights,
        "_plain",
        then(lambda text: type(text)(text.text.removesuffix("</s>"), text.parts, text.asked)),
        f"{GO_IN}without_a_template_the_answer_and_the_end_are_asked_for",
    ),
    "a projector left behind": of_tests(
        places,
        "_between",
        instead(()),
        "tests/families/test_traced_inputs.py::test_images_and_masked_texts_meet_in_their_towers",
    ),
    "a batch parted whose images are not": of_tests(
        parts,
        "apart",
        lambda right: samples_in,
        f"{READ}batches_whose_images_cannot_be_told_apart_go_to_either_half_whole",
    ),
    "images that go after what is said": of_tests(
        rows,
        "_placed",
        then(lambda turns: tuple(turn._replace(parts=turn.parts[::-1]) for turn in turns)),
        f"{READ}images_go_where_a_row_says_or_before_what_the_user_says",
    ),
}
