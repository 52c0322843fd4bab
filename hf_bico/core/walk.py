"""Forward passes that wait at every linear map they come to, so that several of them can go side by side."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from queue import SimpleQueue
from threading import Thread
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from hf_bico.core.kernels import Convolution
from hf_bico.core.taps import Taps
from hf_bico.core.types import Site


class Stop(NamedTuple):
    """Where a pass has come to: the linear maps of one weight, the rows that they read and those that they give."""

    sites: tuple[Site, ...]
    x: Tensor
    """(n, T, d_in); of a convolution its patches, (n, T, d_in · taps)"""
    y: Tensor
    """(n, T, d): the outputs of all sites of a fused weight side by side."""


class Walk:
    """A forward pass in a thread of its own, which runs only while it is asked for its next stop.

    Weights need no gradient and get none. Passes on one model may go side by side: nothing of the model is changed.

    Args:
        replaced: id of a parameter outside the sites → what is used in its place from then on.
    """

    def __init__(
        self,
        run: Callable[[], Any],
        model: nn.Module,
        sites: Iterable[Site],
        samples: int | None,
        replaced: Mapping[int, Tensor] = MappingProxyType({}),
    ) -> None:
        self._here: SimpleQueue[Stop | BaseException | None] = SimpleQueue()
        self._there: SimpleQueue[Tensor | Exception | None] = SimpleQueue()
        self._mode = _Steps(model, sites, self._wait, samples, replaced)
        self._thread = Thread(target=self._pass, args=(run,), daemon=True)

    def step(self, change: Tensor | None = None) -> Stop | None:
        """Go on to the next stop; None at the end of the pass.

        Args:
            change: what is added to the outputs of the stop that the pass is at, of their shape.

        Raises:
            Exception: whatever the pass raised.
        """
        if self._thread.ident is None:  # not yet begun
            self._thread.start()
        else:
            self._there.put(change)
        found = self._here.get()
        if isinstance(found, BaseException):
            raise found
        return found

    def close(self) -> None:
        """Leave the pass where it is."""
        if self._thread.is_alive():
            self._there.put(_Left())
            self._thread.join()

    def _wait(self, stop: Stop) -> Tensor | None:
        self._here.put(stop)
        answer = self._there.get()
        if isinstance(answer, Exception):
            raise answer
        return answer

    def _pass(self, run: Callable[[], Any]) -> None:
        try:
            with torch.no_grad(), self._mode:
                run()
            self._here.put(None)
        except _Left:
            pass
        except BaseException as error:
            self._here.put(error)


class _Left(Exception):
    """The pass is needed no further."""


class _Steps(Taps):
    """Shows every watched linear map's rows, and adds what it is answered to its outputs."""

    def __init__(
        self,
        model: nn.Module,
        sites: Iterable[Site],
        wait: Callable[[Stop], Tensor | None],
        samples: int | None,
        replaced: Mapping[int, Tensor],
    ) -> None:
        super().__init__(model, sites, (), lambda stream, rows: None, samples)
        self.wait, self.replaced = wait, replaced

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Collection[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        if self.replaced:
            args, kwargs = tree_map_only(Tensor, lambda own: self.replaced.get(id(own), own), (args, kwargs))
        return super().__torch_function__(func, types, args, kwargs)

    def _watch(
        self,
        sites: Sequence[Site],
        func: Callable[..., Tensor],
        x: Tensor,
        weight: Tensor,
        *args: Any,
        by: Convolution | None = None,
        **kwargs: Any,
    ) -> Tensor:
        y = func(x, weight, *args, **kwargs)
        packed, read = sites[0].tokens.packed, x if by is None else by.patches(x)
        change = self.wait(Stop(tuple(sites), self.by_sample(read, packed=packed), self.by_sample(y, packed=packed)))
        return y if change is None else y + change.reshape(y.shape).to(y)
