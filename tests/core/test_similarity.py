"""Which block takes from which: by index, by CKA, by a file; each against what can be worked out by hand."""

from dataclasses import replace
from itertools import combinations_with_replacement

import numpy as np
import pytest
import torch
from support.twins import Samples, tiny_clip, twin

from hf_bico import PortError
from hf_bico.core import similarity
from hf_bico.core.collect import Batch, Side, frozen
from hf_bico.core.moments import resampling
from hf_bico.core.pairing import by_index, by_path, depths_of, pair_sites, read_matching, source_depth, subset
from hf_bico.core.similarity import cka_matrix, monotone_path
from hf_bico.core.taps import taps
from hf_bico.core.types import Signal, Tokens
from hf_bico.families import family_of
from hf_bico.reports.figures import Matched, draw_matching


def sites_of(model):
    return family_of(model).sites(model)


def matrix_of(a, b, samples, *, batch=4, target_size=None, memory=similarity.MEMORY):
    return cka_matrix(
        Side(a, samples.loss),
        Side(b, samples.loss),
        (sites_of(a), sites_of(b)),
        "",
        lambda: samples.batches(batch, target_size),
        memory=memory,
    )


def inputs(model, images, samples):
    """(blocks, n, T, d) inputs of every block's first site."""
    seen, sites = {}, [site for site in sites_of(model) if site.role == "q"]
    with frozen(model), taps(model, sites, {Signal.INPUT}, seen.__setitem__):
        samples.loss(model, (images, samples.labels))
    return [seen[site.stream(Signal.INPUT)] for site in sites]


def cka(a, b):
    """By the kernel form: HSIC of centred sample-by-sample Grams; it shares nothing with the streamed one."""
    centre = np.eye(len(a)) - 1 / len(a)
    k, l = (centre @ x @ x.T @ centre for x in (a.numpy(), b.numpy()))
    return (k * l).sum() / np.sqrt((k * k).sum() * (l * l).sum())


def test_cka_is_that_of_the_rows():
    samples = Samples.make(6)
    a, b = tiny_clip(16, 2), tiny_clip(24, 3, seed=3)
    want = [
        [cka(x.flatten(0, 1), y.flatten(0, 1)) for x in inputs(a, samples.images, samples)]
        for y in inputs(b, samples.images, samples)
    ]
    got = matrix_of(a, b, samples)
    assert got.shape == (3, 2)
    assert np.allclose(got, want)
    assert np.ptp(got) > 0.005


def test_rows_of_another_grid_are_resized_first():
    samples = Samples.make(5)
    a, b = tiny_clip(16, 2), tiny_clip(24, 2, seed=3, size=40)
    larger = torch.nn.functional.interpolate(samples.images, size=40)
    resize = resampling(Tokens(1, (4, 4)), Tokens(1, (5, 5))).dense().double()
    want = [
        [cka((resize @ x).flatten(0, 1), y.flatten(0, 1)) for x in inputs(a, samples.images, samples)]
        for y in inputs(b, larger, samples)
    ]
    assert np.allclose(matrix_of(a, b, samples, target_size=40), want)


def test_batches_and_memory_change_nothing():
    samples = Samples.make(7)
    a, b = tiny_clip(16, 2), tiny_clip(24, 3, seed=3)
    whole = matrix_of(a, b, samples, batch=7)
    assert np.allclose(matrix_of(a, b, samples, batch=2), whole)
    for blocks in (1, 2):
        assert np.allclose(matrix_of(a, b, samples, memory=4 * 2 * blocks * 16 * 24), whole)


def test_memory_bounds_what_is_held(monkeypatch):
    held = []
    right = similarity.Grams
    monkeypatch.setattr(similarity, "Grams", lambda pairs: (held.append(len(pairs)), right(pairs))[1])
    a, b = tiny_clip(16, 2), tiny_clip(24, 3, seed=3)
    matrix_of(a, b, Samples.make(2), memory=4 * 2 * 2 * 16 * 24)
    assert held == [4, 2]


def test_padding_has_no_say():
    """Rows that meet nothing change no CKA, whatever is in them, and the mean is not theirs."""
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(4, 6, d, generator=generator, dtype=torch.float64) + 1 for d in (5, 7))
    met = torch.eye(6).repeat(4, 1, 1)
    met[1, 4:], met[3, 2:] = 0, 0
    kept = met.diagonal(dim1=1, dim2=2).bool()
    site = sites_of(tiny_clip(16, 1))[0]
    text = replace(site, tokens=Tokens(0, sequence="text"))
    pair = similarity.Pair(text, text)
    grams = similarity.Grams([pair])
    for some in (slice(0, 1), slice(1, 4)):
        stream = pair.base.stream(Signal.INPUT)
        grams.add(*pair.streams(Signal.INPUT), grams.hold(stream, a[some]), b[some], {"text": met[some]})
    assert grams.cka(pair) == pytest.approx(cka(a[kept], b[kept]))


def test_a_twin_gives_the_diagonal():
    model, samples = tiny_clip(16, 4), Samples.make(8)
    matrix = matrix_of(model, twin(model), samples)
    assert np.allclose(matrix.diagonal(), 1)
    assert monotone_path(matrix) == (0, 1, 2, 3)


def with_idle_blocks(model, after):
    """The same function with a block that adds nothing put in before each of these blocks."""
    blocks = model.visual.transformer.resblocks
    longer = tiny_clip(16, len(blocks) + len(after))
    state = {key: tensor for key, tensor in model.state_dict().items() if ".resblocks." not in key}
    longer.load_state_dict(state, strict=False)
    heirs, place = [], 0
    for depth, block in enumerate(blocks):
        for idle in ([True] if depth in after else []) + [False]:
            into = longer.visual.transformer.resblocks[place]
            into.load_state_dict(block.state_dict())
            if idle:
                for last in (into.attn.out_proj, into.mlp.c_proj):
                    torch.nn.init.zeros_(last.weight)
                    torch.nn.init.zeros_(last.bias)
            heirs.append(depth)
            place += 1
    return longer, tuple(heirs)


def test_blocks_that_were_put_in_take_from_where_they_stand():
    """Not what the rule by index says: that one would spread them evenly."""
    model, samples = tiny_clip(16, 4, heads=2), Samples.make(8)
    longer, heirs = with_idle_blocks(model, after=(1, 3))
    assert heirs == (0, 1, 1, 2, 3, 3)
    assert heirs != tuple(source_depth(l, 4, 6) for l in range(6))
    assert monotone_path(matrix_of(model, longer, samples)) == heirs


@pytest.mark.parametrize("seed", range(30))
def test_no_monotone_path_is_better(seed):
    generator = np.random.default_rng(seed)
    matrix = generator.random(generator.integers(1, 6, 2))
    rows, columns = matrix.shape
    every = list(combinations_with_replacement(range(columns), rows))
    sums = [matrix[range(rows), path].sum() for path in every]
    path = monotone_path(matrix)
    assert path in every
    assert matrix[range(rows), path].sum() == pytest.approx(max(sums))
    assert monotone_path(np.ones_like(matrix)) == (0,) * rows


def test_blocks_that_do_not_vary_are_like_nothing():
    samples = Samples.make(3)
    a, b = tiny_clip(16, 1), tiny_clip(24, 1, seed=3)
    with torch.no_grad():
        b.visual.transformer.resblocks[0].ln_1.weight.zero_()
        b.visual.transformer.resblocks[0].ln_1.bias.normal_()
    assert matrix_of(a, b, samples).tolist() == [[0.0]]


def test_nothing_to_compare_is_refused():
    samples = Samples.make(2)
    model = tiny_clip(16, 1)
    side = Side(model, samples.loss)
    with pytest.raises(PortError, match="no samples"):
        cka_matrix(side, side, (sites_of(model),) * 2, "", list)
    with pytest.raises(PortError, match="no blocks to compare in tower 'text'"):
        cka_matrix(side, side, (sites_of(model),) * 2, "text", list)
    broken = [Batch((samples.images * float("nan"), samples.labels), (samples.images, samples.labels))]
    with pytest.raises(PortError, match="NaN or Inf"):
        cka_matrix(side, side, (sites_of(model),) * 2, "", lambda: broken)


# Pairing


def taken(pairs):
    return {b.depth: a.depth for a, b in pairs if b.depth is not None}


def test_a_path_is_followed_and_blocks_can_be_left_alone():
    a, b = sites_of(tiny_clip(16, 3)), sites_of(tiny_clip(16, 4))
    assert taken(pair_sites(a, b)) == dict(enumerate(by_index("", 3, 4)))
    assert taken(pair_sites(a, b, by_path({"": (2, 0, 0, 1)}))) == {0: 2, 1: 0, 2: 0, 3: 1}
    some = pair_sites(a, b, by_path({"": (0, None, None, 1)}))
    assert taken(some) == {0: 0, 3: 1}
    assert [pair.target.role for pair in some if pair.target.depth is None] == ["proj"]


def test_towers_are_matched_apart():
    def towers(text, other):
        return [
            replace(site, tower=tower, name=f"{tower} {site.name}")
            for tower, blocks in (("text", text), ("decoder", other))
            for site in sites_of(tiny_clip(16, blocks))
        ]

    a, b = towers(2, 3), towers(4, 3)
    assert depths_of(a) == {"text": 2, "decoder": 3}
    pairs = pair_sites(a, b)
    assert all(pair.base.tower == pair.target.tower for pair in pairs)
    assert {(p.target.tower, p.target.depth): p.base.depth for p in pairs if p.target.depth is not None} == {
        **{("text", l): source_depth(l, 2, 4) for l in range(4)},
        **{("decoder", l): l for l in range(3)},
    }
    only = pair_sites(a, b, subset(by_index, "decoder:0-1", None))
    assert {(p.target.tower, p.target.depth) for p in only} >= {("decoder", 0), ("decoder", 1)}
    assert not any(p.target.tower == "text" and p.target.depth is not None for p in only)
    with pytest.raises(PortError, match=r"text block 0 q \(target\) has no q in the source"):
        pair_sites([site for site in a if site.tower == "decoder"], b)


def test_roles_outside_the_blocks_may_stay_alone():
    a, b = sites_of(tiny_clip(16, 2)), sites_of(tiny_clip(16, 2))
    pooler = replace(a[-1], role="pooler", name="pooler")
    for source, target in (((*a, pooler), b), (a, (*b, pooler)), (a[:-1], b), (a, b[:-1])):
        pairs = pair_sites(source, target)
        assert {pair.target.depth for pair in pairs} >= {0, 1}
        assert all(pair.base.role == pair.target.role != "pooler" for pair in pairs)
    extra = replace(a[0], role="MLP gate", name="block 0 MLP gate")
    with pytest.raises(PortError, match=r"block 0 MLP gate \(source\) has no MLP gate in the target"):
        pair_sites((*a, extra), b)
    with pytest.raises(PortError, match=r"block 0 MLP gate \(target\) has no MLP gate in the source"):
        pair_sites(a, (*b, extra))


@pytest.mark.parametrize(
    ("layers", "skip", "want"),
    [
        (None, "3", [0, 1, 2, None]),
        ("0-1,3", None, [0, 1, None, 3]),
        ("0-3", "1-2", [0, None, None, 3]),
        (" 2 , 0 ", None, [0, None, 2, None]),
    ],
)
def test_a_subset_leaves_the_other_blocks(layers, skip, want):
    assert list(subset(by_index, layers, skip)("", 4, 4)) == want
    assert subset(by_index, None, None) is by_index


@pytest.mark.parametrize(
    ("layers", "skip", "words"),
    [
        ("0-9", None, "layers= names block 9, and the target's are 0 to 3"),
        ("a", None, "layers= is a list"),
        ("", None, "layers= is a list"),
        (None, "2-1", "skip= is a list"),
        (None, "4", "skip= names block 4"),
        ("-1", None, "layers= is a list"),
        ("1.5", None, "layers= is a list"),
    ],
)
def test_a_wrong_subset_is_refused(layers, skip, words):
    with pytest.raises(PortError, match=words):
        subset(by_index, layers, skip)("", 4, 4)


def test_nothing_left_to_move_is_refused():
    sites = [site for site in sites_of(tiny_clip(16, 2)) if site.depth is not None]
    with pytest.raises(PortError, match="nothing is left to move"):
        pair_sites(sites, sites, subset(by_index, None, "0-1"))


@pytest.mark.parametrize(
    "text",
    [
        "{0: 0, 1: 0, 2: 1}",
        "0: 0\n1: 0\n2: 1\n",
        "- [0, 0]\n- [2, 1]\n- [1, 0]\n",
        '"": {0: 0, 1: 0, 2: 1}',
        '{"": [[0, 0], [1, 0], [2, 1]], text: null}',
    ],
)
def test_a_file_says_which_block_takes_from_which(tmp_path, text):
    file = tmp_path / "pairs.yaml"
    file.write_text(text)
    assert read_matching(file)("", 2, 3) == (0, 0, 1)
    file.write_text("{0: 1, 1: null, 2: 0}")
    assert read_matching(file)("", 2, 3) == (1, None, 0)
    file.write_text("text: null")
    assert read_matching(file)("text", 2, 3) == (None, None, None)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{0: 0, 1: 5, 2: 0}", "source blocks that do not exist: 5; there are 0 to 1"),
        ("{0: 0, 1: 0, 2: 0, 7: 1}", "target blocks that do not exist: 7; there are 0 to 2"),
        ("{0: 0}", "says nothing about target blocks 1, 2"),
        ("{0: -1, 1: 0, 2: 0}", "source blocks that do not exist: -1"),
        ("[[0, 0], [0, 1]]", "names a target block twice"),
        ("0: [1, 2]", "is not a table of blocks"),
        ("", "is not a table of blocks"),
        ("hello", "is not a table of blocks"),
        ("{0: true}", "is not a table of blocks"),
        ("[0, 1]", "is not a table of blocks"),
        ("{a: {0: 0}}", "says nothing about the blocks of the one tower; it names 'a'"),
        ("{0: [", "cannot read the matching"),
        ("{text: {0: 0}, 1: 1}", "is not a table of blocks"),
    ],
)
def test_a_wrong_file_is_refused(tmp_path, text, words):
    file = tmp_path / "pairs.yaml"
    file.write_text(text)
    with pytest.raises(PortError, match=words) as refusal:
        read_matching(file)("", 2, 3)
    assert "\n" not in str(refusal.value)
    with pytest.raises(PortError, match="cannot read the matching"):
        read_matching(tmp_path / "none.yaml")


def test_the_picture_is_drawn(tmp_path):
    matrix = np.random.default_rng(0).random((6, 4))
    for name in ("one.png", "one.svg"):
        draw_matching({"": Matched(matrix, (0, 1, None, 2, 3, 3))}, ("a", "b"), tmp_path / name)
        assert (tmp_path / name).stat().st_size > 2000
    draw_matching(
        {"text": Matched(matrix, [0] * 6), "decoder": Matched(matrix.T, [None] * 4)}, ("a", "b"), tmp_path / "two.png"
    )
