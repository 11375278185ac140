"""The engine behind a denoiser: its fused weights, the buffers of the batches it serves, and its graphs."""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Hashable
from typing import Any, Literal, get_args

from models.complaints import shown
from models.engine.graphs import Graphs, compiled
from models.engine.plan import make_plan
from models.engine.session import Session, Shape
from models.engine.versions import Versions
from models.engine.weights import BlockWeights, read_block

Kind = Literal["auto", "plain", "graphs"]
KINDS: tuple[Kind, ...] = get_args(Kind)
SESSIONS = 4  # batches of different shape whose buffers are kept
LOG = logging.getLogger(__name__)


class Engine:
    """Runs the forwards of decodes on static shapes: eagerly on a CPU, as captured graphs on CUDA.

    Args:
        denoiser: whose blocks it runs; their query, key and value projections become views of one tensor, and so do gate and up.
        capture: whether to capture graphs on CUDA.
    """

    def __init__(self, denoiser: Any, *, capture: bool = True) -> None:
        self._denoiser = denoiser
        self.graphs = Graphs(denoiser.device, capture=capture)
        self._weights: list[BlockWeights] = []
        self.versions, self._version = Versions(), 0
        self._sessions: OrderedDict[Shape, Session] = OrderedDict()
        self.refused = 0
        self.in_use = threading.Lock()  # its buffers serve one decode at a time

    @property
    def fallbacks(self) -> int:
        """Decodes and calls that ran on the plain path because their shape or policy did not fit."""
        return self.refused + self.graphs.fallbacks

    def session(self, shape: Shape) -> Session:
        """The buffers for a batch of a shape, kept from the last time where they still are."""
        weights = self._read_weights()
        if shape in self._sessions:
            self._sessions.move_to_end(shape)
            return self._sessions[shape]
        began = time.perf_counter()
        while len(self._sessions) >= SESSIONS:
            old, _ = self._sessions.popitem(last=False)
            self.graphs.forget(lambda key: _shape_of(key) == old)  # noqa: B023
        self._sessions[shape] = Session(
            self._denoiser, weights, shape, self.graphs.run, compiled(make_plan, self._denoiser.device)
        )
        LOG.info("engine: buffers for %s in %.1f s", shape, time.perf_counter() - began)
        return self._sessions[shape]

    def _read_weights(self) -> list[BlockWeights]:
        """The weights of all blocks; where any weight has moved or changed since, whatever was captured on them is dropped."""
        if self._version != self.versions.of(self._denoiser):
            self._weights = [read_block(block) for block in self._denoiser.blocks]
            self._version = self.versions.of(self._denoiser)  # reading may have moved them
            self._sessions.clear()
            self.graphs.forget(lambda _: True)
            self.graphs.device = self._denoiser.device
        return self._weights


def _shape_of(key: Hashable) -> Hashable:
    return key[0] if isinstance(key, tuple) else key


def engine_for(denoiser: Any, kind: str) -> Engine | None:
    """The engine of a kind: `auto` takes graphs on CUDA and none elsewhere; `graphs` on a CPU runs them uncaptured.

    Raises:
        ValueError: for any other kind.
    """
    if kind not in KINDS:
        raise ValueError(f"engine must be one of {', '.join(KINDS)}, got {shown(kind)}")
    wanted = kind == "graphs" or (kind == "auto" and denoiser.device.type == "cuda")
    return Engine(denoiser) if wanted else None
