"""Wrong ways with added tokens and with heads, each with the tests that must notice it."""

from contextlib import nullcontext

from hf_bico.core import room
from hf_bico.families import heads, new_tokens, riders
from hf_bico.workflows import companions, live
from tests.mutants.changes import given, instead, of_tests

LIVE, PORTED = "tests/families/test_new_tokens.py::test_", "tests/workflows/test_added_tokens.py::test_"
BESIDE = "tests/families/test_beside.py::test_"
TELLS = f"{BESIDE}a_head_that_is_carried_tells_of_the_norm_before_it"
TWIN = f"{LIVE}added_tokens_mean_in_a_twin_what_they_mean_in_the_fine_tune"

MUTANTS = {
    "rows without a token are taken as they are": of_tests(
        room.Room,
        "__init__",
        given(lambda self, count, places, known: (self, count, (), known)),
        f"{TWIN}[llama-pads1]",
    ),
    "added rows start at nothing": of_tests(
        room.Room,
        "made",
        lambda right: lambda self, rows: right(self, rows) * (right(self, rows) != right(self, rows)[-1]),
        f"{LIVE}between_unrelated_models_they_start_at_the_mean_of_the_others",
    ),
    "a target keeps the rows that it was lent": of_tests(
        live,
        "with_room",
        lambda right: lambda side: nullcontext(new_tokens.make_room(side)),
        f"{TWIN}[t5-pads4]",
    ),
    "rows of tokens that the target has are added to": of_tests(
        new_tokens.NewTokens,
        "vocabularies",
        lambda right: lambda self, *both: new_tokens.vocabularies_of(*both),
        f"{LIVE}tokens_that_the_target_has_keep_its_rows",
    ),
    "the tokenizer is the target's own": of_tests(
        companions, "write_tokens", instead(None), f"{PORTED}a_port_to_a_twin_answers_chats_as_the_fine_tune_does"
    ),
    "special tokens are added as plain ones": of_tests(
        new_tokens,
        "_join",
        lambda right: lambda tokenizer, tokens: (tokenizer.add_tokens([t.content for t in tokens]), tokenizer)[1],
        f"{LIVE}a_saved_port_is_opened_with_its_tokens",
    ),
    "masked-language heads stay": of_tests(
        riders, "word_head", instead(()), f"{BESIDE}everything_that_changed_moves_between_permuted_twins[bert words]"
    ),
    "a head that is carried knows nothing of the norm before it": of_tests(
        heads, "into_head", instead({}), *(f"{TELLS}[{name}]" for name in ("vit", "gpt2-classifier", "modernbert"))
    ),
}
