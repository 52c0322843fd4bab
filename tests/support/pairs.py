"""Datasets of texts for models that give features of them."""

from datasets import Dataset, Features, Value
from support.repos import texts

S = Value("string")
COLUMNS = {
    "plain": {"text": S},
    "scored": {"sentence1": S, "sentence2": S, "score": Value("float32")},
    "together": {"anchor": S, "positive": S, "negative": S},
}


def write_pairs(folder, kind: str):
    """A dataset of texts: alone, in pairs with the share of words that both have, or with their own beginnings."""
    (folder / "data").mkdir(parents=True)
    for split in ("train", "test"):
        found = texts(split)
        beginnings = [" ".join(text.split()[:3]) for text in found]
        values = [found, [*found[1:], found[0]], [5.0 * (k % 6) / 5 for k in range(len(found))]]
        values = [beginnings, found, [*found[1:], found[0]]] if kind == "together" else values
        columns = dict(zip(COLUMNS[kind], values, strict=False))
        table = Dataset.from_dict(columns, features=Features(COLUMNS[kind]))
        table.to_parquet(folder / "data" / f"{split}-0.parquet")
    return folder
