"""Sounds that are read, heard, asked or scored wrongly, each with the test that must notice it."""

from hf_bico.families import losses, sounds, spoken
from hf_bico.families.traced.family import Traced
from hf_bico.tasks import scores, speech
from hf_bico.tasks import sounds as files
from hf_bico.workflows import port
from tests.mutants.changes import given, instead, of_tests

HEARD = "tests/tasks/test_sounds.py::test_"
PORTED = "tests/workflows/test_sound_ports.py::test_"

MUTANTS = {
    "sounds at the rate of their files": of_tests(
        sounds.Sound,
        "at",
        lambda right: lambda self, rate: self.samples,
        f"{HEARD}files_of_any_kind_rate_and_channels_are_heard_alike[WAV]",
    ),
    "a file that is cut off taken as it is": of_tests(
        files, "_is_cut", instead(False), f"{HEARD}sounds_that_cannot_be_read_are_refused_with_their_row[cut off]"
    ),
    "another letter for none": of_tests(
        losses,
        "loss_of_letters",
        given(lambda logits, labels, frames, blank: (logits, labels, frames, blank + 1)),
        f"{HEARD}loss_is_transformers_own[letters]",
    ),
    "frames of padding": of_tests(
        losses,
        "frames_of",
        lambda right: lambda model, inputs, logits: right(model, {}, logits),
        f"{HEARD}loss_is_transformers_own[letters]",
    ),
    "letters of the new base": of_tests(
        port, "write_companions", instead(None), f"{PORTED}the_ports_letters_are_the_fine_tunes"
    ),
    "a projection that stays behind": of_tests(
        Traced,
        "sites",
        lambda right: (
            lambda self, model, *, every=False: tuple(
                site for site in right(self, model, every=every) if site.role != "feature projection"
            )
        ),
        "tests/families/test_traced.py::test_few_letters_are_a_vocabulary_too",
    ),
    "errors by the words that are wrong": of_tests(
        scores.Score, "errors", given(lambda counts: (counts[:, [1, 0, 3, 2]],)), f"{HEARD}errors_are_jiwers"
    ),
    "texts in no language": of_tests(
        spoken, "_before", instead([]), f"{HEARD}every_model_is_asked_in_the_fine_tunes_language"
    ),
    "a sound too short for its letters": of_tests(
        speech.Spelled, "_require_room", instead(None), f"{HEARD}what_a_sound_cannot_say_is_refused"
    ),
}
