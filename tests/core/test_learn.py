"""What a target learns from where a port puts it."""

from dataclasses import replace

import pytest
import torch
from support.laws.models import carried, job, model, noise_tau, plus, samples
from support.twins import distance

from hf_bico.core.errors import PortError
from hf_bico.core.learn import Lesson, learn, least
from hf_bico.core.learnt import LoRA, Scales
from hf_bico.core.low_rank import Delta, LowRank
from hf_bico.core.method import Fold
from hf_bico.core.methods import METHODS, BiCo, Distil, FewShot
from hf_bico.core.types import Slice

RATE = 1e-3


def given(target: str = "wide", **how):
    tau = noise_tau("own")
    return job("own", target, tau, n=12, batch=5, **how), Delta.of(carried(BiCo(rtol=1e-11), "own", target, tau))


def change(start: Delta, found: Delta) -> dict:
    return {key: found[key] - start[key] for key in start}


def test_a_port_that_answers_as_the_fine_tune_has_nothing_to_learn():
    """Between two models of one function a port's loss is 0."""
    (work, start), (other, less) = given("turned"), given("wide")
    lesson = Lesson(1, RATE, labels=False)
    assert abs(learn(work, start, lesson)[1].losses[0]) < 1e-12
    assert learn(work, {}, lesson)[1].losses[0] > 1e-3
    assert learn(other, less, lesson)[1].losses[0] > 1e-3


@pytest.mark.parametrize(("make", "rate"), [(LoRA(2), 0.01), (Scales(3), 0.3)])
def test_what_is_learnt_is_small_and_lowers_the_loss(make, rate):
    (work, start), lesson = given(), Lesson(12, rate, decay=0.0, labels=False, make=make)
    learned, taught = learn(work, start, lesson)
    assert taught.losses[1] < 0.98 * taught.losses[0]
    again, _ = learn(work, start, lesson)
    assert all(torch.equal(learned[key], again[key]) for key in start)
    whole = replace(work, batches=lambda: samples(12).batches(12))
    assert distance(learn(whole, start, lesson)[0], learned) < 1e-6
    for key, moved in change(start, learned).items():
        if moved.ndim == 1:
            assert not moved.any()
        elif isinstance(make, LoRA):
            assert torch.linalg.matrix_rank(moved, rtol=1e-9) == make.rank
        else:
            u, _, vt = torch.linalg.svd(start[key], full_matrices=False)
            inside = u.T @ moved @ vt.T
            assert float(inside.diagonal()[:3].norm()) == pytest.approx(float(moved.norm()), rel=1e-9)


def test_a_learnt_lora_is_one_lora_with_the_port_s():
    work, _ = given()
    start, shapes = Delta(work.weights), {}
    for key, tensor in work.weights.items():
        if key.startswith("visual.") and key.endswith("c_fc.weight"):
            shapes[key] = tensor.shape
            b, a = (torch.randn(shape, dtype=tensor.dtype) for shape in ((tensor.shape[0], 2), (2, tensor.shape[1])))
            start.write(Slice(key), LowRank(b, a))
    learned, _ = learn(work, start, Lesson(2, RATE, labels=False, make=LoRA(3)))
    for key in shapes:
        factors = learned.factors(key)
        assert factors is not None and factors.rank == 5
        assert torch.allclose(factors.dense(), learned[key])


def test_labels_and_answers_are_added_up():
    work, start = given()
    first = [learn(work, start, Lesson(1, RATE, soft=soft, labels=not soft))[1].losses[0] for soft in (True, False)]
    assert learn(work, start, Lesson(1, RATE))[1].losses[0] == pytest.approx(sum(first))


def test_every_step_is_on_another_view():
    work, start = given()
    plain, numbers = samples(12).batches(5), []

    class Views(list):
        def view(self, number):
            numbers.append(number)
            return self

    seen = replace(work, batches=lambda: Views(plain))
    learn(seen, start, Lesson(3, RATE))
    assert numbers == [0, 1, 2]
    learn(seen, start, Lesson(3, RATE, views=False))
    assert numbers == [0, 1, 2]


def test_the_rate_is_the_best_on_held_out_samples():
    """A fold's loss is of the target as its own samples have taught it, at either rate."""
    work, start = given()
    weights, held = work.target.model.state_dict(), []

    def fold(first: int) -> Fold:
        some = samples(12).batches(4)[first : first + 1]
        return Fold(lambda: some, lambda: held.append({k: t.clone() for k, t in weights.items()}) or 1.0 * len(held))

    folds = (fold(0), fold(1))
    _, learned = learn(replace(work, folds=folds), start, Lesson(2, "auto", rates=(1e-3, 1e-4)))
    assert learned.tried == [(1e-3, 1.0), (1e-4, 2.0)]  # on the first fold alone: a training is what costs
    assert learned.rate == 1e-3
    for state, (rate, number) in zip(held, [(r, n) for r in (1e-3, 1e-4) for n in (0,)], strict=True):
        alone = learn(replace(work, batches=folds[number].batches), start, Lesson(2, rate))[0]
        expected = plus(model("wide"), alone).state_dict()
        assert all(torch.allclose(state[key], expected[key], atol=1e-12) for key in state)
    assert learn(work, start, Lesson(1))[1].rate == Lesson().default
    assert least([(1e-3, 1.0), (1e-4, 1.0), (1e-2, float("nan"))]) == 1e-4


def test_what_cannot_be_learnt_is_refused():
    work, start = given()
    deaf = replace(work, target=work.target._replace(answers=None))
    with pytest.raises(PortError, match="answers mean nothing to the new base"):
        learn(deaf, start, Lesson(1, RATE))
    learn(deaf, start, Lesson(1, RATE, soft=False))
    other = replace(work, target=work.target._replace(answers=lambda *given: work.base.answers(*given)[:, 1:]))
    with pytest.raises(PortError, match="cannot be compared"):
        learn(other, start, Lesson(1, RATE))
    with pytest.raises(PortError, match="at every rate"):
        least([(1e-3, float("inf"))])
    with pytest.raises(PortError, match="give a smaller one"):
        learn(work, start, Lesson(9, 1e200))
    for wrong in ({"steps": 0}, {"rate": 0.0}, {"rate": float("nan")}, {"decay": -1.0}):
        for method in (FewShot, Distil):
            with pytest.raises(PortError, match="takes steps of 1 or more"):
                method(**wrong)
    assert METHODS["distil"] is Distil
