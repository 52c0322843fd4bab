"""Tiny models whose heads score words through a layer of their own."""

from support.family_twins import DISTIL, END, text_case

LIKE_MODERNBERT = {"cls_token_id": 1, "sep_token_id": END, "decoder_bias": True}
WORDS_HIDDEN = {
    "bert": text_case("BertForMaskedLM", "words"),
    "bert-untied": text_case("BertForMaskedLM", "words", tie_word_embeddings=False),
    "roberta": text_case("RobertaForMaskedLM", "words"),
    "xlm-roberta": text_case("XLMRobertaForMaskedLM", "words"),
    "distilbert": text_case("DistilBertForMaskedLM", "words", DISTIL),
    "mpnet": text_case("MPNetForMaskedLM", "words"),
    "modernbert": text_case("ModernBertForMaskedLM", "words", **LIKE_MODERNBERT),
    "nomic": text_case("NomicBertForMaskedLM", "words"),
}
