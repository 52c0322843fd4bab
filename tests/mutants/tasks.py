"""Wrong labels, losses, heads and scores of tasks, each with the test that must notice it."""

from hf_bico.families import marked, sentences
from hf_bico.tasks import classifiers, embeddings, heads, labels, requirements, scores
from tests.mutants.changes import instead, of_tests, then

ASKED = "tests/tasks/test_classifiers.py::test_"
READ = "tests/tasks/test_labels.py::test_"
OPENS = "tests/workflows/test_sentences.py::test_sentence_transformers_opens_the_port"
DENSE, TOGETHER = f"{OPENS}[scored dense]", f"{OPENS}[together dense]"

MUTANTS = {
    "several labels summed over the classes": of_tests(
        classifiers, "loss_of_several", then(lambda loss: 4 * loss), f"{ASKED}loss_is_transformers_own[several]"
    ),
    "an answer a token late": of_tests(
        marked,
        "_ends",
        then(lambda ends: (ends[0] + 1, ends[1])),
        f"{ASKED}ends_of_an_answer_are_tokens_and_what_is_cut_has_none",
    ),
    "an answer that keeps its articles": of_tests(
        scores,
        "_plain_words",
        lambda right: lambda text: text.lower().split(),
        f"{ASKED}answers_are_scored_by_squads_rules[The Eiffel Tower!-wanted0-1-1]",
    ),
    "hidden words that are there": of_tests(
        marked, "_owner", instead(None), f"{ASKED}the_same_words_are_hidden_whatever_the_tokenizer"
    ),
    "labels that no model gives": of_tests(
        requirements,
        "_require_answer",
        instead(None),
        f"{READ}labels_of_another_kind_than_the_models_are_refused[one of several]",
    ),
    "a yes or no taken for the classes that are there": of_tests(
        labels._Reader, "is_hot", instead(False), f"{READ}several_classes_come_in_many_ways[whole yes or no]"
    ),
    "the mean whatever pooling is said": of_tests(sentences, "_modes", instead(("mean",)), DENSE),
    "prompts left out": of_tests(
        embeddings.Together,
        "prompts",
        lambda right: property(lambda self: ("", "")),
        TOGETHER,
    ),
    "hard negatives left out": of_tests(
        embeddings.Together,
        "_parts",
        then(lambda parts: (parts[0], parts[1][: len(parts[0])])),
        "tests/workflows/test_sentences.py::test_the_loss_of_texts_that_belong_together_is_the_librarys_own[2]",
    ),
    "a Dense layer of other coordinates": of_tests(
        heads, "carried_layer", then(lambda made: (made[0].roll(1, 1), made[1])), DENSE
    ),
}
