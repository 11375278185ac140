"""The buffers of a batch in the middle of decoding, and the two forwards on them: canvases whole, and in part over a context."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, fields
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from models.block_run import positions_of, predictors, themselves
from models.engine import kernels
from models.engine.block import Attend, run_blocks
from models.engine.figures import FLOATS, INTS, figures
from models.engine.graphs import compiled
from models.engine.place import Place
from models.engine.plan import Contexts, Plan, empty_contexts, empty_plan, make_plan
from models.engine.rows import part_rows, read_rows, spread_rows, whole_rows
from models.engine.weights import BlockWeights
from models.engine.window import WideTap

CANVASES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256)


@dataclass(frozen=True)
class Shape:
    """What the buffers and graphs of a batch depend on.

    Args:
        prompts, canvases: B prompts with at most K canvases each.
        length: of the canvases, L.
        mode: none, prefix or dual.
        taps: blocks whose input, keys and values a head reads.
        padded: whether some position of the batch is padding.
        holes: whether some padding follows a token.
        forbidden: ids that are never a candidate.
        logits: whether the logits themselves are wanted, for draws, in place of their figures.
    """

    prompts: int
    canvases: int
    length: int
    mode: str
    taps: tuple[int, ...]
    padded: bool
    holes: bool
    forbidden: tuple[int, ...]
    logits: bool = False


class Session:
    """The buffers of one batch.

    Args:
        model: the denoiser: its embedding, final norm, LM head, `rotary`, `shifted` and `mask_id` are read.
        weights: of its blocks.
        shape: of the batch.
        run: (key, function) -> calls the function, by its graph where there is one.
        lay: `make_plan`, or the same compiled.
    """

    def __init__(
        self,
        model: Any,
        weights: list[BlockWeights],
        shape: Shape,
        run: Callable[[Hashable, Any], None],
        lay: Callable[..., Any] = make_plan,
    ) -> None:
        self.model, self.weights, self.shape, self.run, self.lay = model, weights, shape, run, lay
        self.device: torch.device = model.device
        self.dtype: torch.dtype = model.token_embedding.weight.dtype
        one, total = weights[0], shape.prompts * shape.canvases
        by_head = (total, one.kv_heads, shape.length, one.head_dim)
        cached = shape.mode != "none"
        self.keys = [self._new(*by_head) for _ in weights] if cached else []
        self.values = [self._new(*by_head) for _ in weights] if cached else []
        self.contexts = empty_contexts(shape.prompts, shape.canvases, shape.length, self.device)
        long: dict[str, Any] = {"dtype": torch.long, "device": self.device}
        grid = (shape.prompts, shape.canvases)
        self.tokens = torch.zeros(*grid, shape.length, **long)
        self.rows = torch.zeros(*grid, shape.length, dtype=torch.bool, device=self.device)
        self.plan = empty_plan(shape.prompts, shape.canvases, self.device)
        self.floats = torch.zeros(total, shape.length, FLOATS, device=self.device)
        self.ints = torch.zeros(total, shape.length, INTS, **long)
        self.logits: Tensor | None = None
        self.cos, self.sin = (self._new(shape.prompts, shape.length, one.head_dim) for _ in range(2))
        self.seen = torch.ones(shape.prompts, shape.length, dtype=torch.bool, device=self.device)
        self.source = torch.zeros(shape.prompts, shape.length, **long)
        self.size, self.low = (torch.zeros(shape.prompts, **long) for _ in range(2))
        self.desk: Any = None  # what the decode loop keeps in buffers of its own
        self.taps = {tap: self._new_tap(by_head, grid) for tap in shape.taps}

    def _new(self, *shape: int) -> Tensor:
        return torch.zeros(*shape, dtype=self.dtype, device=self.device)

    def _new_tap(self, by_head: tuple[int, ...], grid: tuple[int, int]) -> WideTap:
        width = self.model.hidden_size
        canvas = torch.arange(by_head[0], device=self.device).view(grid)
        return WideTap(
            hidden=self._new(by_head[0], self.shape.length, width),
            keys=self._new(*by_head),
            values=self._new(*by_head),
            cos=self.cos,
            sin=self.sin,
            seen=self.seen,
            low=self.low,
            source=self.source,
            canvas=canvas,
            prompt=canvas // self.shape.canvases,
            first=self.plan.first,
            width=self.shape.length,
            shift=int(self.model.shifted),
            holes=self.shape.holes,
        )

    def begin(self, attention_mask: Bool[Tensor, "B L"], prompts: Bool[Tensor, " B"] | None = None) -> None:
        """Take the padding of a new batch, and forget all contexts, or those of the prompts alone that are new in it."""
        self.seen.copy_(attention_mask)
        cos, sin = self.model.rotary(positions_of(self.seen))
        self.cos.copy_(cos)
        self.sin.copy_(sin)
        self.source.copy_(predictors(self.seen) if self.model.shifted else themselves(self.seen))
        self.size.copy_(self.seen.sum(-1))
        self.low.copy_(self.seen.long().argmax(-1))
        for held in (self.contexts.valid, self.contexts.age):
            held.zero_() if prompts is None else held.masked_fill_(prompts.unsqueeze(-1), 0)

    def prepare(
        self,
        tokens: Int[Tensor, "B K L"],
        rows: Bool[Tensor, "B K L"],
        live: Bool[Tensor, "B K"],
        refresh: Bool[Tensor, "B K"],
        alarm: Int[Tensor, ""],
    ) -> None:
        """Take the canvases of the next round and lay down what it computes; `alarm` is passed on to the host with the plan.

        Args:
            tokens: of all canvases.
            rows: positions asked for, none of a canvas that does not run.
            live: canvases that run.
            refresh: those whose block has just opened.
            alarm: what was wrong in the last round, 0 for nothing.
        """
        settings: dict[str, Any] = {
            "mask_id": self.model.mask_id,
            "mode": self.shape.mode,
            "shift": int(self.model.shifted),
        }
        settings |= {"size": self.size, "alarm": alarm}
        plan, contexts = self.lay(self.plan, self.contexts, tokens, rows, live, refresh, **settings)
        pairs = [(self.tokens, tokens), (self.rows, rows)]
        pairs += [(getattr(self.plan, f.name), getattr(plan, f.name)) for f in fields(Plan)]
        pairs += [(getattr(self.contexts, f.name), getattr(contexts, f.name)) for f in fields(Contexts)]
        pairs = [(buffer, value) for buffer, value in pairs if value is not buffer]  # without a cache much stays
        copy_all([buffer for buffer, _ in pairs], [value for _, value in pairs])

    def forward(self, flags: list[int]) -> int:
        """Compute what the plan says, given its flags; returns the width of the window that holds every row asked for."""
        part, whole, span, asked = flags
        width = min(self.shape.length, _up(asked, 32))
        if part:
            shift = int(self.model.shifted)
            rows = min(self.shape.length, _up(span - shift, 8 if span <= 64 else 32) + shift)
            count = self._bucket(part)
            self.run((self.shape, "part", count, rows, width), lambda: self._part(count, rows, width))
        if whole:
            number = self._bucket(whole)
            self.run((self.shape, "whole", number, width), lambda: self._whole(number, width))
        return width

    def _bucket(self, count: int) -> int:
        return min(self.shape.prompts * self.shape.canvases, next(c for c in (*CANVASES, count) if c >= count))

    @property
    def _tables(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.cos, self.sin, self.model.token_embedding.weight

    def _part(self, count: int, rows: int, width: int) -> None:
        plan, find = self.plan, compiled(part_rows, self.device)
        spans = (plan.slot, plan.start, plan.count)
        index, prompt, slot, start, real, where, low, cos, sin, hidden = find(
            plan.part_order, plan.part, spans, self.tokens, self._tables, self.low, (count, rows)
        )
        place = Place(slot, start, real, low, self.seen[prompt] if self.shape.holes else None)

        def attend(block: int) -> Attend:
            context, tap = (self.keys[block], self.values[block]), self.taps.get(block)
            if tap is not None:
                tap.hidden[index.unsqueeze(1), where] = hidden

            def attend_(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
                if tap is not None:
                    tap.take(index, (context[0][slot], context[1][slot]), where, (key, value))
                return kernels.attend_span(query, key, value, context, place, self.weights[block].scale)

            return attend_

        run_blocks(hidden, self.weights, (cos, sin), attend)
        self._read(hidden, index, prompt, start, width)

    def _whole(self, count: int, width: int) -> None:
        plan, find = self.plan, compiled(whole_rows, self.device)
        index, prompt, slot, cos, sin, hidden, outside, first = find(
            plan.whole_order, plan.whole, plan.slot, self.tokens, self._tables, self.seen, self.low, count
        )
        padding, low = outside if self.shape.padded else None, None if self.shape.holes else first

        def attend(block: int) -> Attend:
            tap = self.taps.get(block)
            if tap is not None:
                tap.hidden.index_copy_(0, index, hidden)

            def attend_(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
                if self.keys:
                    self.keys[block].index_copy_(0, slot, key)
                    self.values[block].index_copy_(0, slot, value)
                if tap is not None:
                    tap.keys.index_copy_(0, index, key)
                    tap.values.index_copy_(0, index, value)
                return kernels.attend_whole(query, key, value, padding, low, self.weights[block].scale)

            return attend_

        run_blocks(hidden, self.weights, (cos, sin), attend)
        self._read(hidden, index, prompt, torch.zeros_like(index), width)

    def _read(
        self,
        hidden: Float[Tensor, "N Q D"],
        index: Int[Tensor, " N"],
        prompt: Int[Tensor, " N"],
        start: Int[Tensor, " N"],
        width: int,
    ) -> None:
        """LM head and figures at the rows asked for, written where each canvas has its own."""
        choose = compiled(read_rows, self.device)
        chosen = choose(hidden, (index, prompt, start), self.plan.first, self.source, width)
        norm = self.model.final_norm
        normed = kernels.rms_norm(chosen, norm.weight, norm.variance_epsilon)
        logits = torch.nn.functional.linear(normed, self.model.lm_head.weight)
        if self.shape.logits:
            self._logits(torch.unflatten(logits, 0, (len(index), width)), index)
            return
        spread = compiled(spread_rows, self.device)
        floats, ints = spread(figures(logits, self.shape.forbidden), index, self.plan.first, self.shape.length)
        self.floats.index_copy_(0, index, floats)
        self.ints.index_copy_(0, index, ints)

    def _logits(self, logits: Float[Tensor, "N W V"], index: Int[Tensor, " N"]) -> None:
        if self.logits is None:
            total = self.shape.prompts * self.shape.canvases
            self.logits = self._new(total, self.shape.length, logits.shape[-1])
        self.logits[:, : logits.shape[1]].index_copy_(0, index, logits)


def copy_all(buffers: list[Tensor], values: list[Tensor]) -> None:
    """Write values into buffers, those of one dtype together."""
    for dtype in {buffer.dtype for buffer in buffers}:
        pairs = [
            (b.view(-1), v.expand_as(b).reshape(-1)) for b, v in zip(buffers, values, strict=True) if b.dtype == dtype
        ]
        torch._foreach_copy_([b for b, _ in pairs], [v for _, v in pairs])


def _up(count: int, step: int) -> int:
    return max(step, (count + step - 1) // step * step)
