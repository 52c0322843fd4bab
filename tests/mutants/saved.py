"""Wrong readings of sources and samples as people save them, each with the tests that must notice it."""

from hf_bico.core import account, difference
from hf_bico.families import chat, tokenizing
from hf_bico.io import models, names
from hf_bico.tasks import pictures, usable
from hf_bico.workflows import scoring, session
from tests.mutants.changes import given, instead, of_tests

SAVED, PORTED = "tests/io/test_as_saved.py::test_", "tests/workflows/test_sources_as_saved.py::test_"
DIFFERENCE, CHATS = "tests/core/test_difference.py::test_", "tests/families/test_chats.py::test_"
BESIDE = f"{PORTED}of_a_model_with_an_adapter_beside_it_the_same_is_scored_and_moved"

MUTANTS = {
    "rounding is a change": of_tests(
        difference, "is_rounding", instead(False), f"{DIFFERENCE}one_tensor_in_two_dtypes_has_no_change"
    ),
    "a change is rounding": of_tests(
        difference, "is_rounding", instead(True), f"{DIFFERENCE}a_trained_tensor_keeps_its_change_in_any_dtype"
    ),
    "what cannot be compared is dropped": of_tests(
        account,
        "_left_apart",
        instead(()),
        f"{PORTED}a_vocabulary_of_another_size_is_scored_with_it_and_left_behind",
    ),
    "no mark is taken off in silence": of_tests(
        names, "note", instead(None), f"{SAVED}marks_of_wrappers_are_taken_off_and_said[DDP]"
    ),
    "an adapter beside a model is scored with it": of_tests(session, "open_model", instead(None), f"{BESIDE}[None]"),
    "a wrapped source is opened by its files": of_tests(
        models.RepoModel,
        "__init__",
        lambda right: lambda self, *args, own_way=False, **options: right(self, *args, **options),
        f"{PORTED}a_wrapped_source_without_its_head_is_scored_and_moved_as_it_is_whole",
    ),
    "a head that was not saved is made up": of_tests(
        scoring,
        "borrowed",
        instead(set()),
        f"{PORTED}a_wrapped_source_without_its_head_is_scored_and_moved_as_it_is_whole",
    ),
    "linear maps are taken from the base": of_tests(
        models.RepoModel, "sites", instead(()), f"{SAVED}a_linear_map_is_never_taken_from_the_base"
    ),
    "quantised weights are taken for floats": of_tests(
        models, "require_float", instead(None), f"{SAVED}quantised_weights_are_named_as_what_they_are[FP8]"
    ),
    "16 bits are cut off": of_tests(
        pictures, "WIDE", lambda right: (), "tests/tasks/test_pictures.py::test_more_bits_are_scaled_not_cut_off"
    ),
    "unlabelled rows stay": of_tests(
        usable, "UNLABELLED", lambda right: (), "tests/tasks/test_usable.py::test_rows_without_a_label_are_left_out"
    ),
    "rows of the whole split under the numbers of those that were kept": of_tests(
        usable.Kept,
        "rows",
        lambda right: lambda self, indices, columns: self.split.rows(indices, columns),
        "tests/tasks/test_usable.py::test_rows_without_a_label_are_left_out",
    ),
    "system turns are dropped": of_tests(
        chat,
        "folded",
        lambda right: lambda messages: [each for each in messages if each["role"] != "system"],
        f"{CHATS}a_system_turn_goes_before_the_user_turn_where_a_template_refuses_it",
    ),
    "prompts are asked for": of_tests(
        chat, "turns_of", given(lambda *args: (*args[:-1], 0)), f"{CHATS}of_a_prompt_nothing_is_asked"
    ),
    "texts end with their padding": of_tests(
        tokenizing,
        "padding_of",
        lambda right: lambda tokenizer, config: tokenizer.eos_token_id,
        "tests/families/test_tokenizing.py::"
        "test_a_classifier_without_a_padding_token_answers_as_it_does_for_each_text_alone[texts end with the end of "
        "sequence]",
    ),
    "positions without end": of_tests(
        tokenizing,
        "positions",
        instead(10**6),
        "tests/families/test_tokenizing.py::test_texts_are_cut_at_the_models_positions",
    ),
}
