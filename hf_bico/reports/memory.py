"""How much memory a port takes, stage by stage, as far as shapes tell."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any

from hf_bico.core.errors import PortError, setting
from hf_bico.core.groups import blocks, crossings, grouped, moments_bytes
from hf_bico.core.method import Method
from hf_bico.core.methods import FewShot
from hf_bico.core.methods.polished import Polished
from hf_bico.core.pieces import piece_size
from hf_bico.core.types import GRADIENTS, Pair, Signal, Site, Tensors

WEIGHTED = frozenset({Signal.WEIGHTED_INPUT, Signal.WEIGHTED_GRADIENT})
WIDE = 4
"""Bytes of a number of a moment, a map, a change (float32)."""
BYTES = {"F64": 8, "F32": 4, "BF16": 2, "F16": 2}
"""Bytes of a number of a file's tensor, by safetensors' name of its dtype."""
ADAM = 5
"""Copies of what is trained: itself, its gradient, AdamW's two moments, and the tensors of the try before."""
KEPT_FOR_WEIGHTS = 1.25
"""What a backward pass to the weights keeps, in units of what goes in and comes out of the sites; measured."""
ON_THE_WAY = 4
"""Copies of a layer's change while it moves: both sides' tensors and τ, then a product and the result."""
READING = 5
"""Copies of a tensor while its τ is read and looked through."""
TOKENS_KEPT = 3
"""Copies of the logits that a loss keeps: themselves, their logarithms, the gradient."""


@dataclass(frozen=True)
class Work:
    """What a port has to do, as far as shapes tell."""

    pairs: Sequence[Pair]
    base_sites: Sequence[Site]
    method: Method
    n: int
    """Calibration samples."""
    models: Sequence[Tensors]
    """Shapes of the base and the target, or their tensors."""
    length: int = 1
    """The most tokens of a text sample; images have a number of their own."""
    on_top: tuple[int, int] = (0, 0)
    """Parameters of either model outside its sites that every token passes: a language model's output embeddings."""
    evaluated: int = 0
    """Samples to score on."""
    search: bool = False
    """Whether α is searched."""
    batch_size: int = 8
    logits: tuple[int, int] = (0, 0)
    """How many numbers either language model answers a token with."""
    beside: int = 0
    """How many numbers of the target move beside the pairs."""
    baselines: int = 0
    """How many changes are held beside the port's, to measure it against."""
    from_files: bool = False
    """Whether the fine-tune is opened too, to score it, and the models are read from files."""
    stored: bool = False
    """Whether models of files are held in the files' dtypes, not in float32."""
    memory: int | None = None
    """The most bytes that may be held; None: whatever it takes."""

    @property
    def rows(self) -> int:
        """Samples that pass at once."""
        return min(self.batch_size, self.n)

    def tokens(self, site: Site) -> int:
        """Return the rows of a sample at a site."""
        return self.length if site.tokens.sequence else site.tokens.count


def stages(work: Work, groups: Sequence[slice], *, apart: bool = False) -> dict[str, int]:
    """Return stage → the most bytes that tensors take in it.

    Args:
        apart: whether the models are on a device with a memory of its own, where changes are not.
    """
    method = work.method.method if isinstance(work.method, Polished) else work.method
    a, b = (weights_bytes(model, work.stored) for model in work.models)
    moved = sum(target.d_out * target.d_in * target.taps for _, target in work.pairs)
    change = WIDE * (moved + work.beside) * (not apart)
    kept = _bytes_of_one(work, 1) * (moved + work.beside)  # what a change takes the place of, to be put back
    moments = method.held * max(moments_bytes(work.pairs[group], method.wanted) for group in groups)
    moments += 2 * WIDE * moved * (Signal.WEIGHT_GRADIENT in method.wanted.signals)
    staged = work.memory is not None and method.by_layer
    so_far = max(WIDE * _numbers(work.pairs[group]) for group in groups) * (not apart) if staged else change
    going = max(moments, so_far) if method.by_layer else moments + so_far  # a layer's moments go as it moves
    deltas = 0 if staged else (1 + work.baselines) * change
    forward, largest = _forward(work), _largest(work)
    on_its_own = largest if work.beside else 0  # embeddings are the largest that move
    found = {
        "load": (a + b + max(a, READING * largest)) * work.from_files,
        "calibrate": a + b + moments + max(_collecting(_in_pieces(work, apart), method, group) for group in groups),
        "move": a + b + going + _solving(work, method) + ON_THE_WAY * max(_widest(work), on_its_own),
        "evaluate": (b + kept + deltas + forward + largest) * bool(work.evaluated),
        "search": (a + b + kept + deltas + moments * (not method.by_layer) + forward + largest) * work.search,
    }
    steps = getattr(method, "steps", 1)
    if isinstance(method, FewShot):
        trained = ADAM * WIDE * moved + (kept if _bytes_of_one(work, 1) < WIDE else 0)
        passing = int(KEPT_FOR_WEIGHTS * _activations(work, 1)) + _logits(work, 1)
        found |= {"calibrate": a + b, "move": a + b + trained + passing}
    elif steps > 1:  # both models stand on the way; the sums of the first step and the change so far are held
        beside = a + kept + moments + change
        found["move"] = beside + max(found["move"], found["calibrate"])
    return found


def fitted(work: Work, held: int, *, apart: bool = False) -> tuple[slice, ...]:
    """Return the groups of layers of a port, as few as keep it within its memory.

    Args:
        held: bytes that are in use before it.

    Raises:
        PortError: there is no way to.
    """
    method, whole = work.method, (slice(0, len(work.pairs)),)
    total, each = moments_bytes(work.pairs, method.wanted), tuple(blocks(work.pairs))
    fewer = (grouped(work.pairs, method.wanted, total / count) for count in range(2, len(each)))
    needed = 0
    for groups in (whole, *fewer, each) if method.by_layer and work.memory else (whole,):
        needed = held + max(stages(work, groups, apart=apart).values())
        if work.memory is None or needed <= work.memory:
            return groups
    raise PortError(_too_much(work, needed, held))


def _too_much(work: Work, needed: int, held: int) -> str:
    """Return why a port does not fit, in one line."""
    weights, method = sum(weights_bytes(model, work.stored) for model in work.models), work.method
    how, mend = "even with one block of layers at a time", f"a smaller {setting('batch_size')} needs less"
    if not method.by_layer:
        how = f"as {method.name} looks at all layers at once"
        mend = f"{setting('method')} bico, weighted and theseus work on a group of layers at a time"
    return (
        f"{setting('memory')} is too little: {needed / 1e9:.3g} GB are needed, {how} ({weights / 1e9:.3g} GB of it for "
        f"the two models, {held / 1e9:.3g} GB in use before); {mend}"
    )


UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "KI": 2**10, "MI": 2**20, "GI": 2**30, "TI": 2**40}


def bytes_of(text: str | None) -> int | None:
    """Return the bytes of a text such as 40GB or 8GiB; of None None.

    Raises:
        PortError: it is not a size above 0.
    """
    if text is None:
        return None
    found = re.fullmatch(r"([0-9]*\.?[0-9]+) *([KMGT]I?)?B?", text.strip().upper())
    size = int(float(found[1]) * UNITS[found[2] or ""]) if found else 0
    if size <= 0:
        raise PortError(f"{setting('memory')} {text!r} is not a size: give one such as 40GB or 8GiB")
    return size


def weights_bytes(model: Tensors, stored: bool = False) -> int:
    """Return bytes of a model's tensors in memory, tied ones once; those of files, maybe narrower, in float32."""
    sizes: dict[Any, int] = {}
    for key in model:
        tensor: Any = model[key]
        own = getattr(tensor, "data_ptr", None)
        sizes[(own and own()) or key] = prod(tensor.shape) * _bytes(tensor, stored)
    return sum(sizes.values())


def _bytes(tensor: Any, stored: bool = False) -> int:
    if hasattr(tensor, "element_size"):
        return int(tensor.element_size())
    return BYTES.get(tensor.dtype, WIDE) if stored else WIDE


def _bytes_of_one(work: Work, side: int) -> int:
    """Return the bytes of a number of a model's weights."""
    model = work.models[side]
    return max((_bytes(model[key], work.stored) for key in model if len(model[key].shape) > 1), default=WIDE)


def _numbers(pairs: Iterable[Pair]) -> int:
    return sum(target.d_out * target.d_in * target.taps for _, target in pairs)


def _in_pieces(work: Work, apart: bool) -> Work:
    """Return the work with batches as they are passed: in pieces, where samples have a fixed number of rows."""
    size = piece_size(work.pairs, "cuda" if apart else "cpu")
    return work if size is None else replace(work, batch_size=min(work.batch_size, size))


def _collecting(work: Work, method: Method, group: slice) -> int:
    """Return bytes of what is held while a batch passes: A's rows until they meet B's, what the backward pass of the
    model that runs needs, and the product of the rows.
    """
    wanted = method.wanted
    if not wanted.signals:
        return 0
    met = crossings(work.pairs[group], wanted)
    size = _bytes_of_one(work, 0)
    waiting = sum(size * d_a * work.tokens(pair.base) * work.rows for d_a, pair in _rows_of_base(work, wanted, group))
    product = max((WIDE * d_b * d_a for d_b, d_a, _ in met), default=0)
    if not wanted.signals & GRADIENTS:
        return waiting + product + _forward(work)
    weighs = bool(wanted.signals & WEIGHTED)  # either side's inputs are then held until their gradient comes
    passing = [_activations(work, side, again=weighs) + _logits(work, side) for side in (0, 1)]
    return waiting + max(passing[0], passing[1] + product + _widest_rows(work))


def _rows_of_base(work: Work, wanted: Any, group: slice) -> Iterable[tuple[int, Pair]]:
    """Yield the width of every stream of A that is watched, and a pair that it is of."""
    found = {}
    for pair in work.pairs[group]:
        for signal in wanted.signals:
            for _, d_a, own in crossings([pair], type(wanted)(frozenset({signal}))):
                found[pair.base.stream(signal)] = d_a, own
    return found.values()


def _activations(work: Work, side: int, *, again: bool = False) -> int:
    """Return bytes of what goes in and comes out of a model's sites for one batch, each once.

    Args:
        again: count what goes in twice.
    """
    sites = {pair[side].name: pair[side] for pair in work.pairs}.values()
    inputs = {site.space: site for site in sites}.values()
    numbers = sum(site.d_out * work.tokens(site) for site in sites)
    numbers += (1 + again) * sum(site.d_in * work.tokens(site) for site in inputs)
    return _bytes_of_one(work, side) * work.rows * numbers


def _logits(work: Work, side: int) -> int:
    return TOKENS_KEPT * WIDE * work.logits[side] * work.length * work.rows


def _forward(work: Work) -> int:
    """Return bytes of the layers that run at once where nothing is kept for a backward pass."""
    return 2 * _widest_rows(work) + _logits(work, 1)


def _widest_rows(work: Work) -> int:
    """Return bytes of the rows of one batch that go in and come out where they are the most."""
    sites = (site for pair in work.pairs for site in pair)
    return WIDE * work.rows * max(((site.d_out + site.d_in) * work.tokens(site) for site in sites), default=0)


def _solving(work: Work, method: Method) -> int:
    """Return bytes of the largest map while it is solved for, and of the maps that are held beside it."""
    found = [0]
    for d_b, d_a, pair in crossings(work.pairs, method.wanted):
        whole, short = d_b * d_a, min(d_b, d_a)
        rows = work.n * min(work.tokens(site) for site in pair)
        own = 2 * rows * (d_b + d_a) + whole if 2 * rows < short else 4 * whole + short**2
        found.append(WIDE * (own + 2 * whole))
    return max(found)


def _widest(work: Work) -> int:
    """Return bytes of the largest change of a layer, of A or of B."""
    return WIDE * max((max(prod((s.d_out, s.d_in, s.taps)) for s in pair) for pair in work.pairs), default=0)


def _largest(work: Work) -> int:
    """Return bytes of the largest tensor of either model, in float32."""
    return WIDE * max((prod(model[key].shape) for model in work.models for key in model), default=0)
