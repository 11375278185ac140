"""Functions on fixed buffers: run as they are, or on a GPU captured at their first call and replayed from then on."""

from __future__ import annotations

import inspect
import logging
import time
import warnings
from collections import Counter, OrderedDict
from collections.abc import Callable, Hashable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeVar, cast

import torch

Made = TypeVar("Made")
Function = TypeVar("Function", bound=Callable[..., Any])
LOG = logging.getLogger(__name__)
GRAPHS = 4096  # kept at most: more than a comparison of many settings takes, and an end to those of a server
COMPILES = ("cuda",)  # devices with a compiler that is worth its time
TOGETHER: dict[str, Any] = {"combo_kernels": True}  # small steps that wait for nothing of each other are one launch
_COMPILED: dict[Any, Any] = {}


def compiled(function: Function, device: torch.device) -> Function:
    """A tensor program whose many small steps are fused on CUDA; itself elsewhere."""
    if device.type not in COMPILES:
        return function
    if function not in _COMPILED:
        LOG.info("engine: %s is compiled at its first calls", getattr(function, "__name__", function))
        from torch._dynamo import config  # heavy

        config.recompile_limit = max(64, config.recompile_limit)
        for told in (".*TensorFloat32", "(?s).*Online softmax"):  # notes on speed that no user of a model can act on
            warnings.filterwarnings("ignore", told, UserWarning, r"torch\._inductor")
        fast = torch.compile(inspect.unwrap(function), dynamic=True, options=TOGETHER)
        _COMPILED[function] = or_itself(fast, function)
    return cast(Function, _COMPILED[function])


def or_itself(fast: Function, function: Function) -> Function:
    """A compiled function; arguments of types that the compiler fails on go to the function as it is, from then on.

    Args:
        fast: the compiled function.
        function: what it was made from.
    """
    from torch._dynamo.exc import TorchDynamoException  # heavy

    refused: set[tuple[Any, ...]] = set()

    def call(*given: Any, **named: Any) -> Any:
        if torch.compiler.is_compiling():
            return function(*given, **named)
        types = (*map(type, given), *((name, type(one)) for name, one in named.items()))
        if types not in refused:
            try:
                return fast(*given, **named)
            except TorchDynamoException as error:  # of the compiler; the function's own errors are of other types
                refused.add(types)
                name, cause = getattr(function, "__name__", function), getattr(error, "inner_exception", error)
                LOG.warning("engine: %s runs uncompiled, the compiler failed: %r", name, cause)
        return function(*given, **named)

    return cast(Function, call)


def on(device: torch.device) -> AbstractContextManager[Any]:
    """Within the block a CUDA device is the current one, which Triton's kernels run on wherever their tensors are."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


class Graphs:
    """Captured CUDA graphs, in one memory pool; without a GPU every function simply runs.

    Attributes:
        fallbacks: calls of functions that could not be captured.
        captured: how many graphs were captured.
        seconds: what capturing them took.
    """

    def __init__(self, device: torch.device, *, capture: bool) -> None:
        self._wanted, self.fallbacks, self.captured, self.seconds = capture, 0, 0, 0.0
        self._kept: OrderedDict[Hashable, torch.cuda.CUDAGraph] = OrderedDict()
        self._refused: set[Hashable] = set()
        self._asked: Counter[Hashable] = Counter()
        self._pool: Any = None
        self._stream: Any = None
        self.move(device)

    def move(self, device: torch.device) -> None:
        """Drop all graphs, and capture from now on for a device."""
        self.forget(lambda _: True)
        self.device, self.capture, self._stream = device, self._wanted and device.type == "cuda", None

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
        with on(self.device):
            graph = self._kept.get(key)
            if graph is None and self.capture and key not in self._refused:
                self._asked[key] += 1
                if self._asked[key] > first:
                    graph = self._take(key, compute, store)
            if graph is not None:
                self._kept.move_to_end(key)
                graph.replay()
                return
            self.fallbacks += key in self._refused
            made = compute()
            if store is not None:
                store(made)

    def forget(self, wanted: Callable[[Hashable], bool]) -> None:
        """Drop the graphs whose key is wanted no more, and try anew what could not be captured for such a key."""
        self._refused = {key for key in self._refused if not wanted(key)}
        self._kept = OrderedDict((key, graph) for key, graph in self._kept.items() if not wanted(key))
        self._asked = Counter({key: count for key, count in self._asked.items() if not wanted(key)})

    def _take(self, key: Hashable, compute: Callable[[], Made], store: Callable[[Made], None] | None) -> Any:
        """Capture a function and keep its graph; None where that cannot be."""
        began = time.perf_counter()
        if self._stream is None:
            make: Any = torch.cuda.Stream
            self._stream = make(self.device)
        if not self._warm(compute):
            self._refused.add(key)
            LOG.info("engine: %s waits for the host and runs uncaptured", _short(key))
            return None
        graph = self._capture(compute, store)
        if graph is None:
            self._refused.add(key)
            LOG.warning("engine: the memory left holds no graph of %s, which runs uncaptured", _short(key))
            return None
        self._keep(key, graph)
        self.captured += 1
        took = time.perf_counter() - began
        self.seconds += took
        LOG.info("engine: captured %s in %.1f s", _short(key), took)
        return graph

    def _capture(self, compute: Callable[[], Made], store: Callable[[Made], None] | None) -> Any:
        """The graph of a function; None where there is not the memory for it."""
        if not self._kept:  # with its last graph a pool ends, and takes no other
            self._pool = torch.cuda.graph_pool_handle()
        graph = torch.cuda.CUDAGraph()
        try:  # other threads may go on meanwhile
            with torch.cuda.graph(graph, self._pool, self._stream, capture_error_mode="thread_local"):
                made = compute()
                if store is not None:
                    store(made)
        except torch.OutOfMemoryError:
            return None
        return graph

    def _keep(self, key: Hashable, graph: Any) -> None:
        """Keep a graph, and let those go that were replayed least lately where there are too many."""
        self._kept[key] = graph
        while len(self._kept) > GRAPHS:
            old, _ = self._kept.popitem(last=False)
            del self._asked[old]

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


def _short(key: Hashable) -> Hashable:
    """The part of a key that people read: a shape and what is done there, without the policy's weights."""
    return key[:2] if isinstance(key, tuple) else key
