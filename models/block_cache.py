"""Block caches: between two openings of a block, only the open block (dual) or all from it on (prefix) is computed.

Keys and values elsewhere stay as they were when the block opened: Fast-dLLM, arXiv 2505.22618. Approximate by design.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import pad

from models.block_run import BlockStack, Recorder, Run, context_of
from models.complaints import shown

Rotary = tuple[Float[Tensor, "N L d"], Float[Tensor, "N L d"]]


@dataclass(frozen=True)
class Snapshot:
    """Keys and values of C canvases at the forward that opened their block.

    Attributes:
        owner: the prompt each belongs to; a prompt has several while it is open which of its branches was chosen.
        tokens: the canvases then.
        start, end: what to compute anew until the next opening, [start, end).
        keys, values: of every block, keys rotated.
    """

    owner: Int[Tensor, " C"]
    tokens: Int[Tensor, "C L"]
    start: Int[Tensor, " C"]
    end: Int[Tensor, " C"]
    keys: tuple[Float[Tensor, "C H S d"], ...]
    values: tuple[Float[Tensor, "C H S d"], ...]

    def at(self, index: Int[Tensor, " n"]) -> Snapshot:
        """Some of the canvases."""
        return self._combine(lambda parts: parts[0][index])

    def with_(self, other: Snapshot) -> Snapshot:
        """These canvases, then those of another snapshot."""
        return self._combine(torch.cat, other)

    def _combine(self, function: Callable[[list[Tensor]], Tensor], *others: Snapshot) -> Snapshot:
        def one(name: str) -> Tensor | tuple[Tensor, ...]:
            parts = [getattr(snapshot, name) for snapshot in (self, *others)]
            if isinstance(parts[0], tuple):
                return tuple(function(list(layer)) for layer in zip(*parts, strict=True))
            return function(parts)

        return Snapshot(**{f.name: one(f.name) for f in fields(Snapshot)})  # type: ignore[arg-type]


class BlockCache:
    """Reuses keys and values between the openings of blocks; the one part of a denoiser that remembers.

    A canvas is computed whole when its block opens, and whenever no snapshot of its prompt fits it (a position was changed
    that is revealed there, or a position is asked for outside the span). Canvases that are and are not computed whole run
    one group after the other.

    Args:
        mode: `prefix` computes from the first open position to the end of the canvas, `dual` to the end of the open block.
    """

    def __init__(self, mode: str) -> None:
        if mode not in ("prefix", "dual"):
            raise ValueError(f"use_cache must be none, prefix or dual, got {shown(mode)}")
        self.mode = mode
        self._kept: Snapshot | None = None

    def run(
        self,
        denoiser: BlockStack,
        tokens: Int[Tensor, "N L"],
        attention_mask: Bool[Tensor, "N L"] | None,
        rotary: Rotary,
        rows: Bool[Tensor, "N L"],
        taps: Sequence[int],
        owner: Int[Tensor, " N"] | None,
        refresh: Bool[Tensor, " N"] | None,
    ) -> Run:
        """Compute every canvas, as little of each as the cache allows, and remember the ones whose block opened.

        Args:
            denoiser: whose blocks run.
            tokens, attention_mask: N canvases; False on padding.
            rotary: cosines and sines of every position.
            rows: positions asked for.
            taps: blocks whose input is kept.
            owner: the prompt of each canvas; None for one canvas a prompt.
            refresh: canvases to be computed whole; None for all.
        """
        owner = torch.arange(len(tokens), device=tokens.device) if owner is None else owner
        entry = self._fitting(denoiser, tokens, rows, owner)
        entry = torch.where(torch.ones_like(owner, dtype=torch.bool) if refresh is None else refresh, -1, entry)
        whole, part = (entry < 0).nonzero().squeeze(-1), (entry >= 0).nonzero().squeeze(-1)
        used, place = torch.unique(entry[part], return_inverse=True)
        kept = self._kept if self._kept is None or len(used) == len(self._kept.owner) else self._kept.at(used)
        self._kept = kept if len(part) else None

        def group(index: Tensor) -> tuple[Tensor, Tensor | None, Rotary]:
            mask = None if attention_mask is None else attention_mask[index]
            return tokens[index], mask, (rotary[0][index], rotary[1][index])

        runs = []
        if len(part) and kept is not None:
            runs.append((part, _run_span(denoiser, *group(part), kept, place, taps)))
        if len(whole):
            recorder = Recorder(range(len(denoiser.blocks)))
            run = denoiser.run_blocks(*group(whole), recorder, taps, context_of(*group(whole)[:2]))
            runs.append((whole, run))
            self._remember(denoiser, tokens[whole], rows[whole], owner[whole], run)
        return runs[0][1] if len(runs) == 1 else _join(runs, len(tokens), taps)

    def extend(self, left: int) -> None:
        """Follow canvases that get columns of padding on the left, or lose them."""
        if self._kept is not None:
            kept = self._kept
            self._kept = replace(
                kept,
                tokens=pad(kept.tokens, (left, 0)),
                start=kept.start + left,
                end=kept.end + left,
                keys=tuple(pad(keys, (0, 0, left, 0)) for keys in kept.keys),
                values=tuple(pad(values, (0, 0, left, 0)) for values in kept.values),
            )

    def _fitting(
        self, denoiser: BlockStack, tokens: Int[Tensor, "N L"], rows: Bool[Tensor, "N L"], owner: Int[Tensor, " N"]
    ) -> Int[Tensor, " N"]:
        """For each canvas the snapshot it can read, or -1: one that all canvases of the prompt agree with, revealed so far."""
        kept = self._kept
        if kept is None or kept.tokens.shape[1] != tokens.shape[1]:
            return torch.full_like(owner, -1)
        same_owner = owner.unsqueeze(1) == kept.owner
        agrees = ((kept.tokens == tokens.unsqueeze(1)) | (kept.tokens == denoiser.mask_id)).all(-1)
        chosen = ~(same_owner & ~agrees).any(0)
        here = torch.arange(tokens.shape[1], device=tokens.device)
        outside = (here < kept.start.unsqueeze(1)) | (here >= kept.end.unsqueeze(1))
        covered = ~(rows.unsqueeze(1) & outside).any(-1)
        fits = same_owner & chosen & covered
        return torch.where(fits.any(-1), fits.long().argmax(-1), -1)

    def _remember(
        self,
        denoiser: BlockStack,
        tokens: Int[Tensor, "n L"],
        rows: Bool[Tensor, "n L"],
        owner: Int[Tensor, " n"],
        run: Run,
    ) -> None:
        length, depth = tokens.shape[1], range(len(denoiser.blocks))
        start = rows.long().argmax(-1)
        end = length - rows.flip(-1).long().argmax(-1)
        new = Snapshot(
            owner=owner,
            tokens=tokens,
            start=start,
            end=torch.full_like(end, length) if self.mode == "prefix" else end,
            keys=tuple(run.keys[index] for index in depth),
            values=tuple(run.values[index] for index in depth),
        )
        self._kept = new if self._kept is None else self._kept.with_(new)


def _run_span(
    denoiser: BlockStack,
    tokens: Int[Tensor, "n L"],
    attention_mask: Bool[Tensor, "n L"] | None,
    rotary: Rotary,
    kept: Snapshot,
    place: Int[Tensor, " n"],
    taps: Sequence[int],
) -> Run:
    """Compute [start, end) of each canvas over the kept keys and values; results are zero elsewhere.

    Spans of one batch may differ in length: a short one repeats its last position, and what the copies compute is dropped.
    """
    start = (kept.start[place] - int(denoiser.shifted)).clamp(min=0)  # a shifted family predicts from one before
    last = kept.end[place] - 1
    width = int((last - start).max()) + 1
    step = torch.arange(width, device=tokens.device)
    real = torch.minimum(step, (last - start).unsqueeze(1))  # [n, Q] which query stands here
    where = start.unsqueeze(1) + real

    def complete(block: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        return tuple(  # type: ignore[return-value]
            old[block][place].scatter(2, _like(where, new), new.gather(2, _like(real, new)))
            for old, new in ((kept.keys, keys), (kept.values, values))
        )

    def spread(hidden: Tensor) -> Tensor:
        hidden = hidden.gather(1, real.unsqueeze(-1).expand_as(hidden))
        index = where.unsqueeze(-1).expand_as(hidden)
        return hidden.new_zeros(*tokens.shape, hidden.shape[-1]).scatter(1, index, hidden)

    cos, sin = (table.gather(1, where.unsqueeze(-1).expand(-1, -1, table.shape[-1])) for table in rotary)
    computed = torch.zeros_like(tokens, dtype=torch.bool).scatter(1, where, torch.ones_like(where, dtype=torch.bool))
    computed = computed & context_of(tokens, attention_mask)
    recorder = Recorder(taps, complete)
    run = denoiser.run_blocks(tokens.gather(1, where), attention_mask, (cos, sin), recorder, taps, computed)
    entered = {index: spread(hidden) for index, hidden in run.entered.items()}
    return replace(run, hidden=spread(run.hidden), entered=entered)


def _like(index: Int[Tensor, "n Q"], states: Float[Tensor, "n H Q d"]) -> Int[Tensor, "n H Q d"]:
    return index[:, None, :, None].expand_as(states)


def _join(runs: list[tuple[Tensor, Run]], canvases: int, taps: Sequence[int]) -> Run:
    """Runs over parts of the batch as one, in the order of the batch."""

    def join(values: list[Tensor]) -> Tensor:
        out = values[0].new_empty(canvases, *values[0].shape[1:])
        for (index, _), value in zip(runs, values, strict=True):
            out[index] = value
        return out

    return Run(
        hidden=join([run.hidden for _, run in runs]),
        entered={tap: join([run.entered[tap] for _, run in runs]) for tap in taps},
        keys={tap: join([run.keys[tap] for _, run in runs]) for tap in taps},
        values={tap: join([run.values[tap] for _, run in runs]) for tap in taps},
        positions=join([run.positions for _, run in runs]),
    )
