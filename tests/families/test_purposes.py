"""What a class is for is told by its name, and what it takes by what transformers says of it."""

import pytest
import transformers

from hf_bico import PortError
from hf_bico.families import Answer, PurposeKind
from hf_bico.families.purposes import of_adapter, of_config


def purpose(cls: str, config: str, **options):
    made = getattr(transformers, config)(**options)
    made.architectures = [cls]
    return of_config(made)


@pytest.mark.parametrize(
    ("cls", "config", "options", "kind", "answer"),
    [
        ("BertForSequenceClassification", "BertConfig", {"num_labels": 3}, "text-classification", Answer.CLASS),
        ("BertForSequenceClassification", "BertConfig", {"num_labels": 1}, "text-classification", Answer.NUMBER),
        (
            "ViTForImageClassification",
            "ViTConfig",
            {"problem_type": "multi_label_classification"},
            "image-classification",
            Answer.CLASSES,
        ),
        ("RobertaForTokenClassification", "RobertaConfig", {}, "token-classification", Answer.WORD_CLASSES),
        ("DistilBertForQuestionAnswering", "DistilBertConfig", {}, "question-answering", Answer.SPAN),
        ("MarianMTModel", "MarianConfig", {}, "seq2seq", None),
        ("Gemma3ForCausalLM", "Gemma3TextConfig", {}, "causal-lm", None),
        ("CLIPVisionModel", "CLIPVisionConfig", {}, "features", None),
        ("Wav2Vec2ForSequenceClassification", "Wav2Vec2Config", {}, "audio-classification", Answer.CLASS),
        ("ASTForAudioClassification", "ASTConfig", {}, "audio-classification", Answer.CLASS),
        ("WhisperForAudioClassification", "WhisperConfig", {"num_labels": 1}, "audio-classification", Answer.NUMBER),
        ("HubertForCTC", "HubertConfig", {}, "ctc", Answer.SPOKEN),
        ("WhisperForConditionalGeneration", "WhisperConfig", {}, "speech-to-text", None),
        ("LlavaForConditionalGeneration", "LlavaConfig", {}, "image-text-to-text", None),
        ("Qwen3VLForConditionalGeneration", "Qwen3VLConfig", {}, "image-text-to-text", None),
    ],
)
def test_classes_are_known_by_their_names_and_configs(cls, config, options, kind, answer):
    found = purpose(cls, config, **options)
    assert (found.kind, found.answer) == (PurposeKind(kind), answer)


@pytest.mark.parametrize(
    ("cls", "config", "what"),
    [
        ("Wav2Vec2Model", "Wav2Vec2Config", "takes audio"),
        ("Speech2TextForConditionalGeneration", "Speech2TextConfig", "takes audio and text"),
        ("LlavaNextForConditionalGeneration", "LlavaNextConfig", "takes image and text"),
        ("Wav2Vec2ForXVector", "Wav2Vec2Config", "for a task that this version does not know"),
        ("BertForMultipleChoice", "BertConfig", "for a task that this version does not know"),
        ("GPT2DoubleHeadsModel", "GPT2Config", "for a task that this version does not know"),
    ],
)
def test_what_cannot_be_fed_is_refused_by_name(cls, config, what):
    with pytest.raises(PortError, match=f"a {cls} .*{what}.*; it ports") as caught:
        purpose(cls, config)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("task", ["CAUSAL_LM", None])
def test_an_adapter_of_a_model_of_images_with_texts_is_for_both(task):
    """PEFT says that it was trained as a language model."""
    config = transformers.LlavaConfig()
    config.architectures = ["LlavaForConditionalGeneration"]
    found = of_adapter(config, task, None)
    assert (found.kind, found.architecture) == (PurposeKind.IMAGE_TEXT, "LlavaForConditionalGeneration")
