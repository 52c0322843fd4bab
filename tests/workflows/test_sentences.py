"""Models of sentence-transformers: what is behind the model is kept, and the library itself opens the port."""

import pytest
import torch
from datasets import Dataset
from huggingface_hub import HfApi
from support.pairs import write_pairs
from support.repos import texts
from support.tasks import write_sentences

from hf_bico import PortError
from hf_bico.families.protocol import Loaded
from hf_bico.families.sentences import Sentence
from hf_bico.io.hub import Hub
from hf_bico.tasks.embeddings import Together
from hf_bico.tasks.samples import Sample
from hf_bico.workflows.config import PortConfig
from hf_bico.workflows.port import run


def ported(root, out, source=None, **changed):
    config = {"base": str(root / "base"), "n": 66, "method": "bico", "allow_regression": True, "output": out}
    config |= {"method_options": ("rtol=1e-6",)}
    names = source or str(root / "ft"), *(str(root / part) for part in ("plus", "task"))
    return run(PortConfig(*names, **config | changed), Hub())


DENSE = {"dense": True, "prompt": "query: "}


@pytest.mark.parametrize(
    ("kind", "shape"),
    [
        pytest.param("scored", {}, id="scored"),
        pytest.param("scored", DENSE, id="scored dense"),
        pytest.param("together", DENSE, id="together dense"),
        pytest.param("together", {"nested": True}, id="together nested"),
    ],
)
def test_sentence_transformers_opens_the_port(tmp_path, kind, shape):
    library = pytest.importorskip("sentence_transformers")
    root = write_sentences(tmp_path, **shape)
    write_pairs(root / "task", kind)
    source = published(root, kind) if shape.get("nested") else None
    outcome = ported(root, tmp_path / "out", source)
    theirs, ours = (library.SentenceTransformer(str(root / part), device="cpu") for part in ("ft", "out"))
    assert ours.prompts == theirs.prompts and [type(m) for m in ours] == [type(m) for m in theirs]
    a, b = (torch.tensor(model.encode(texts("test"))) for model in (theirs, ours))
    assert a.shape[1] == (8 if shape.get("dense") else 24)
    similar, as_similar = a @ a.T, b @ b.T
    assert (similar - as_similar).norm() < 0.03 * similar.norm()  # the same features, in other coordinates
    scores = outcome.report["evaluation"]
    assert scores["ported"]["metric"] == {"scored": "spearman", "together": "MRR@10"}[kind]
    assert scores["ported"]["value"] == pytest.approx(own_score(ours, root, kind), abs=0.02)
    card = (tmp_path / "out" / "README.md").read_text()
    assert 'SentenceTransformer("' in card and str(ours) in card
    for fact in (
        f"**Maximum Sequence Length:** {ours.get_max_seq_length()} tokens",
        f"**Output Dimensionality:** {a.shape[1]} dimensions",
        "**Similarity Function:** Cosine Similarity",
    ):
        assert f"- {fact}\n" in card


def published(root, kind: str) -> str:
    """The fine-tune as a repo of the Hub."""
    repo, api = f"demo/sentences-{kind}", HfApi()
    api.create_repo(repo)
    api.upload_folder(folder_path=root / "ft", repo_id=repo)
    return repo


def own_score(model, root, kind: str) -> float:
    """The score by the library's own evaluator, which rounds cosines that are nearly the same in its own way."""
    from sentence_transformers.sentence_transformer import evaluation

    rows = Dataset.from_parquet(str(root / "task" / "data" / "test-0.parquet"))
    if kind == "scored":
        told = evaluation.EmbeddingSimilarityEvaluator(rows["sentence1"], rows["sentence2"], rows["score"])(model)
        return told["spearman_cosine"]
    numbered = {str(k): text for k, text in enumerate(rows["anchor"])}
    corpus = {str(k): text for k, text in enumerate(rows["positive"])}
    judge = evaluation.InformationRetrievalEvaluator(numbered, corpus, {key: {key} for key in numbered})
    return judge(model)["cosine_mrr@10"]


def test_what_is_behind_a_model_and_not_known_is_refused(tmp_path):
    root = write_sentences(tmp_path)
    modules = root / "ft" / "modules.json"
    modules.write_text(modules.read_text().replace("models.Normalize", "models.LSTM"))
    write_pairs(root / "task", "plain")
    with pytest.raises(PortError, match=r"modules.json has LSTM, which this version does not know; it ports Transf"):
        ported(root, tmp_path / "out", method_options=("label_free=1",))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("negatives", [0, 1, 2])
def test_the_loss_of_texts_that_belong_together_is_the_librarys_own(tmp_path, negatives):
    """Of a batch's own negatives too, whoever of its texts they were found for."""
    library = pytest.importorskip("sentence_transformers")
    from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss

    model = library.SentenceTransformer(str(write_sentences(tmp_path) / "ft"), device="cpu").eval()
    found = texts("train")
    rows = [(" ".join(text.split()[:3]), text, *found[k + 3 :][:negatives]) for k, text in enumerate(found[:6])]
    judge = MultipleNegativesRankingLoss(model)
    inner = model[0].auto_model
    asked = Together(Loaded(inner, None, model.tokenizer), None, sentence=Sentence(("cls",)))
    with torch.no_grad():
        wanted = judge([model.preprocess(list(column)) for column in zip(*rows, strict=True)], None)
        batch = asked.encode([Sample(row, None) for row in rows])
        got, features = asked.loss(inner, batch), asked.per_sample(inner, batch)
    assert float(got) == pytest.approx(len(rows) * float(wanted), rel=1e-5)
    assert features.shape == (6, 48) and asked.answers(inner, batch).shape == (6, 6 * (1 + negatives))
