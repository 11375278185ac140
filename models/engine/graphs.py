"""Functions on fixed buffers: run as they are, or on a GPU captured at their first call and replayed from then on."""

from __future__ import annotations

import logging
import time
import warnings
from collections import Counter
from collections.abc import Callable, Hashable
from typing import Any, TypeVar, cast

import torch

Made = TypeVar("Made")
Function = TypeVar("Function", bound=Callable[..., Any])
LOG = logging.getLogger(__name__)
_COMPILED: dict[Any, Any] = {}


def compiled(function: Function, device: torch.device) -> Function:
    """A tensor program whose many small steps are fused on CUDA; itself elsewhere."""
    if device.type != "cuda":
        return function
    if function not in _COMPILED:
        LOG.info("engine: %s is compiled at its first calls", getattr(function, "__name__", function))
        from torch._dynamo import config  # heavy

        config.recompile_limit = max(64, config.recompile_limit)
        for told in (".*TensorFloat32", "(?s).*Online softmax"):  # notes on speed that no user of a model can act on
            warnings.filterwarnings("ignore", told, UserWarning, r"torch\._inductor")
        _COMPILED[function] = or_itself(torch.compile(function, dynamic=True), function)
    return cast(Function, _COMPILED[function])


def or_itself(fast: Function, function: Function) -> Function:
    """A compiled function; arguments of types that the compiler fails on go to the function as it is, from then on.

    Args:
        fast: the compiled function.
        function: what it was made from, of arguments by position.
    """
    from torch._dynamo.exc import BackendCompilerFailed  # heavy

    refused: set[tuple[type, ...]] = set()

    def call(*given: Any) -> Any:
        types = tuple(type(one) for one in given)
        if torch.compiler.is_compiling() or types in refused:
            return function(*given)
        try:
            return fast(*given)
        except BackendCompilerFailed as error:
            refused.add(types)
            name = getattr(function, "__name__", function)
            LOG.warning("engine: %s runs uncompiled, the compiler failed: %r", name, error.inner_exception)
            return function(*given)

    return cast(Function, call)


class Graphs:
    """Captured CUDA graphs, in one memory pool; without a GPU every function simply runs.

    Attributes:
        fallbacks: calls of functions that could not be captured.
        captured: how many graphs there are.
        seconds: what capturing them took.
    """

    def __init__(self, device: torch.device, *, capture: bool) -> None:
        self.device, self.capture = device, capture and device.type == "cuda"
        self.fallbacks, self.captured, self.seconds = 0, 0, 0.0
        self._kept: dict[Hashable, torch.cuda.CUDAGraph] = {}
        self._refused: set[Hashable] = set()
        self._asked: Counter[Hashable] = Counter()
        self._pool: Any = None
        self._stream: Any = None

    def run(
        self, key: Hashable, compute: Callable[[], Made], store: Callable[[Made], None] | None = None, *, first: int = 0
    ) -> None:
        """Call a function, by its graph where there is one.

        Args:
            key: names the function and every shape it depends on.
            compute: reads fixed buffers; may run more often than asked before it is captured.
            store: writes what was computed into the buffers, exactly once a call.
            first: calls that simply run before one is captured, where most keys are asked for once or twice.
        """
        if self.capture and key not in self._kept and key not in self._refused:
            self._asked[key] += 1
            if self._asked[key] > first:
                self._take(key, compute, store)
        if key in self._kept:
            self._kept[key].replay()
            return
        self.fallbacks += key in self._refused
        made = compute()
        if store is not None:
            store(made)

    def forget(self, wanted: Callable[[Hashable], bool]) -> None:
        """Drop the graphs whose key is wanted no more, and try anew what could not be captured for such a key."""
        self._refused = {key for key in self._refused if not wanted(key)}
        self._kept = {key: graph for key, graph in self._kept.items() if not wanted(key)}
        self._asked = Counter({key: count for key, count in self._asked.items() if not wanted(key)})

    def _take(self, key: Hashable, compute: Callable[[], Made], store: Callable[[Made], None] | None) -> None:
        began = time.perf_counter()
        if self._pool is None:
            make: Any = torch.cuda.Stream
            self._pool, self._stream = torch.cuda.graph_pool_handle(), make(self.device)
        if not self._warm(compute):
            self._refused.add(key)
            LOG.info("engine: %s waits for the host and runs uncaptured", key)
            return
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool, stream=self._stream):
            made = compute()
            if store is not None:
                store(made)
        self._kept[key] = graph
        self.captured += 1
        took = time.perf_counter() - began
        self.seconds += took
        LOG.info("engine: captured %s in %.1f s", key, took)

    def _warm(self, compute: Callable[[], Made]) -> bool:
        """Run once on the capturing stream, so that all kernels are built; whether it did so without waiting for the device."""
        current = torch.cuda.current_stream(self.device)
        self._stream.wait_stream(current)
        mode = torch.cuda.get_sync_debug_mode()
        try:
            with torch.cuda.stream(self._stream), warnings.catch_warnings():
                warnings.filterwarnings("ignore", "Synchronization debug mode")  # that it is a prototype
                compute()  # builds kernels, which may wait
                torch.cuda.set_sync_debug_mode("error")
                compute()
        except RuntimeError as error:
            if "synchroniz" not in str(error):
                raise
            return False
        finally:
            torch.cuda.set_sync_debug_mode(mode)
            current.wait_stream(self._stream)
        return True
