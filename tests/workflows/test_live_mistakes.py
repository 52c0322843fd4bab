"""Live ports: what is given as batches, and the mistakes that are one line."""

import copy

import pytest
import torch
import transformers
from support.family_twins import CASES
from support.live import model_of, named_batch, own_loss, random_sites
from support.repos import batch, case_of, loss, processor_of
from support.twins import Samples, distance, random_fine_tune, tiny_clip
from torch import nn

from hf_bico import Batch, FewShot, PortError, class_loss, port
from hf_bico.core.pairing import by_path
from hf_bico.workflows.live import job_of


class Counted(torch.utils.data.IterableDataset):
    """Batches that can be iterated again, and how often they were."""

    def __init__(self, *passes):
        self.passes, self.count = passes, 0

    def __iter__(self):
        self.count += 1
        return iter(self.passes[min(self.count, len(self.passes)) - 1])


def test_iterables_are_iterated_again_and_iterators_listed():
    clip, samples = tiny_clip(), Samples.make(12)
    first, second = samples.batches(6)
    tuned, job = (
        random_fine_tune(clip),
        {"base": clip, "target": tiny_clip(seed=1), "loss": samples.loss, "method": FewShot(steps=3, rate=1e-5)},
    )
    again = Counted([first, second])
    delta = port(tuned=tuned, **job, calibration=again).delta
    assert again.count == 3
    assert distance(port(tuned=tuned, **job, calibration=iter([first, second])).delta, delta) == 0
    for other in ([second, first], [first]):
        with pytest.raises(PortError, match="not the same when they are iterated again"):
            port(tuned=tuned, **job, calibration=Counted([first, second], other))


def test_a_pair_is_one_batch_for_both_unless_it_says_so():
    clip, other, samples = tiny_clip(), tiny_clip(seed=1), Samples.make(8)
    job = {"tuned": random_fine_tune(clip), "base": clip, "target": other, "loss": class_loss(samples.head)}
    pair = samples.images, samples.labels
    ours = port(**job, calibration=[pair])
    assert distance(ours.delta, port(**job, calibration=[Batch(pair, pair)]).delta) == 0
    assert ours.report["calibration"]["n"] == 8
    with pytest.raises(PortError, match=r"say hf_bico\.Batch"):
        port(**job, calibration=[(pair, pair)])


def test_mistakes_are_one_line():
    clip, samples = tiny_clip(), Samples.make(4)
    bert, whole = model_of("bert"), named_batch("bert")
    tuned = {key: tensor + 0.01 for key, tensor in bert.state_dict().items()}
    job = {"tuned": tuned, "base": bert, "target": model_of("bert", seed=1)}

    def refused(words: str, **changes):
        with pytest.raises(PortError, match=words) as refusal:
            port(**job | {"calibration": [whole]} | changes)
        assert "\n" not in str(refusal.value)

    bare = {key: part for key, part in whole.items() if key != "labels"}
    refused("no labels, which a BertForSequenceClassification's loss needs", calibration=[bare])
    refused("takes batches by name", calibration=[whole["input_ids"]])
    refused("one class a sample", calibration=[whole | {"labels": whole["labels"].double()}])
    refused("no calibration samples", calibration=[])
    longer = {key: torch.cat([part, part[:, -1:]], 1) if part.ndim == 2 else part for key, part in whole.items()}
    refused(r"not the same tokens: say which rows meet, hf_bico\.Batch", calibration=[Batch(whole, longer)])
    few = CASES["bert"].skeleton()
    few.classifier, few.num_labels = nn.Linear(24, 3), 3
    refused(
        "has 11 classes and the target's 3: open the BertForSequenceClassification with num_labels=11",
        target=few.double(),
    )
    refused(
        r"loss=class_loss\(head\)",
        tuned=random_fine_tune(clip),
        base=clip,
        target=tiny_clip(seed=1),
        calibration=[(samples.images, samples.labels)],
    )
    both = CASES["clip"].build()
    refused(
        r"a CLIPModel compares .* loss=class_loss\(head\)",
        tuned=random_sites(both),
        base=both,
        target=CASES["clip"].build(seed=1),
    )
    body = transformers.BertModel(bert.config).double()
    refused("a BertModel comes with no loss", tuned=random_sites(body), base=body, target=copy.deepcopy(body))


def test_blocks_are_matched_as_they_are_told_to():
    model, whole = model_of("bert"), named_batch("bert")
    ported = port(
        tuned=random_sites(model),
        base=model,
        target=model_of("bert", seed=1),
        calibration=[whole],
        matching=by_path({"": (1, None)}),
    )
    assert [(row["target"], row["source"]) for row in ported.report["layers"]] == [(0, 1)]
    assert {entry.reason for entry in ported.account.left} == {
        f"no block of the target takes block 0 {role}"
        for role in ("q", "k", "v", "attention output", "MLP up", "MLP down")
    }


def test_base_and_target_are_on_one_device():
    model, whole = model_of("bert"), named_batch("bert")
    with pytest.raises(PortError, match="the base is on cpu and the target on meta"):
        port(tuned=random_sites(model), base=model, target=model_of("bert", seed=1).to("meta"), calibration=[whole])


def test_progress_is_shown_only_where_asked_for(capsys):
    model, whole, seen = model_of("bert"), named_batch("bert"), []
    job = {
        "tuned": {key: t + 0.01 for key, t in model.state_dict().items()},
        "base": model,
        "target": model_of("bert", seed=1),
        "calibration": [whole, whole],
    }

    def track(items, what, total):
        seen.append((what, total))
        return items

    port(**job, track=track)
    assert any(what == "Trying methods" for what, _ in seen)
    assert capsys.readouterr() == ("", "")


def test_live_jobs_need_no_loss_of_their_own_either():
    model = model_of("bert")
    job = job_of(tuned=random_sites(model), base=model, target=model_of("bert", seed=1), calibration=[])
    whole = named_batch("bert")
    assert torch.allclose(job.base.loss(model, whole), own_loss("bert", model, whole))


def test_a_familys_loss_is_that_of_the_repos(tmp_path):
    """One definition: the same sums as the ports of repos take."""
    for name in ("bert", "llama", "t5"):
        kind = CASES[name].kind
        processor = processor_of(kind)
        model = case_of(name, processor.vocab_size).build()
        inputs, labels = batch(kind, processor)
        job = job_of(tuned=random_sites(model), base=model, target=model, calibration=[])
        assert torch.allclose(job.base.loss(model, inputs | {"labels": labels}), loss(kind)(model, (inputs, labels)))
