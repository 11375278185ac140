"""The engine behind a denoiser: its fused weights, the buffers of the batches it serves, and its graphs."""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any, Literal, get_args

import torch

from models.complaints import shown
from models.engine import kernels
from models.engine.graphs import Graphs, Made, compiled, on
from models.engine.place import HALF
from models.engine.plan import make_plan
from models.engine.session import Session, Shape
from models.engine.versions import Versions
from models.engine.weights import BlockWeights, read_block

Kind = Literal["auto", "plain", "graphs"]
KINDS: tuple[Kind, ...] = get_args(Kind)
SESSIONS = 4  # batches of different shape whose buffers are kept
NARROWEST = 16  # head whose products a kernel can take
BFLOAT16_FROM = (8, 0)  # compute capability
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
        self._unfit: dict[tuple[torch.device, torch.dtype], str] = {}
        self.refused = 0
        self.in_use = threading.Lock()  # its buffers serve one decode at a time

    @property
    def fallbacks(self) -> int:
        """Decodes and calls that ran on the plain path because their shape or policy did not fit."""
        return self.refused + self.graphs.fallbacks

    def serves(self) -> bool:
        """Whether its kernels run the denoiser where it is now, which is found out once; why not is told."""
        weight = self._denoiser.token_embedding.weight
        place = (weight.device, weight.dtype)
        if place not in self._unfit:
            self._unfit[place] = why_unfit(self._denoiser)
            if self._unfit[place]:
                LOG.warning("engine: decodes run on the plain path: %s", self._unfit[place])
        return not self._unfit[place]

    def session(self, shape: Shape) -> Session:
        """The buffers for a batch of a shape, kept from the last time where they still are."""
        weights = self._read_weights()
        if shape in self._sessions:
            self._sessions.move_to_end(shape)
            return self._sessions[shape]
        began = time.perf_counter()
        while len(self._sessions) >= SESSIONS:
            self._drop(next(iter(self._sessions)))
        lay = compiled(make_plan, self._denoiser.device)
        self._sessions[shape] = self._within_memory(
            lambda: Session(self._denoiser, weights, shape, self._run, lay), shape
        )
        LOG.info("engine: buffers for %s in %.1f s", shape, time.perf_counter() - began)
        return self._sessions[shape]

    def _run(self, key: Hashable, compute: Callable[[], None]) -> None:
        self._within_memory(lambda: self.graphs.run(key, compute), _shape_of(key))

    def _within_memory(self, step: Callable[[], Made], shape: Hashable) -> Made:
        """What a step gives; where the memory is too small for it, once the buffers of all other shapes are given back."""
        try:
            return step()
        except torch.OutOfMemoryError:
            others = [one for one in self._sessions if one != shape]
            if not others:
                raise
        for one in others:
            self._drop(one)
        LOG.info("engine: gave the buffers of %d other shapes back for want of memory", len(others))
        return step()

    def _drop(self, shape: Shape) -> None:
        """Give the buffers of a shape back, and the graphs on them."""
        del self._sessions[shape]
        self.graphs.forget(lambda key: _shape_of(key) == shape)

    def _read_weights(self) -> list[BlockWeights]:
        """The weights of all blocks; where any weight has moved or changed since, whatever was captured on them is dropped."""
        if self._version != self.versions.of(self._denoiser):
            self._weights = [read_block(block) for block in self._denoiser.blocks]
            self._version = self.versions.of(self._denoiser)  # reading may have moved them
            self._sessions.clear()
            self.graphs.move(self._denoiser.device)
        return self._weights


def _shape_of(key: Hashable) -> Hashable:
    return key[0] if isinstance(key, tuple) else key


def why_unfit(denoiser: Any) -> str:
    """Why the engine's kernels do not run a denoiser on the GPU that it is on; "" where they do, and on a CPU."""
    weight, head_dim = denoiser.token_embedding.weight, denoiser.blocks[0].self_attn.head_dim
    if weight.device.type != "cuda":
        return ""
    if weight.dtype not in (*HALF, torch.float32):
        return f"weights must be bfloat16, float16 or float32 for its kernels, got {weight.dtype}"
    if head_dim < NARROWEST or head_dim & (head_dim - 1):
        return f"heads must be 16, 32, 64, ... numbers wide for its kernels, got {head_dim}"
    norm = denoiser.final_norm
    try:
        able = torch.cuda.get_device_capability(weight.device)
        if weight.dtype == torch.bfloat16 and able < BFLOAT16_FROM:
            return f"compute capability must be at least 8.0 for its kernels in bfloat16, got {able[0]}.{able[1]}"
        with on(weight.device), torch.no_grad():
            kernels.rms_norm(weight[:1], norm.weight, float(norm.variance_epsilon))
    except Exception as error:  # noqa: BLE001 - Triton, a C compiler or a GPU that it knows may be missing
        return f"Triton must run on this machine for its kernels, got {type(error).__name__}: {error}"
    return ""


def engine_for(denoiser: Any, kind: str) -> Engine | None:
    """The engine of a kind: `auto` takes graphs on CUDA and none elsewhere; `graphs` on a CPU runs them uncaptured.

    Raises:
        ValueError: for any other kind.
    """
    if kind not in KINDS:
        raise ValueError(f"engine must be one of {', '.join(KINDS)}, got {shown(kind)}")
    wanted = kind == "graphs" or (kind == "auto" and denoiser.device.type == "cuda")
    return Engine(denoiser) if wanted else None
