"""Ten-line deterministic denoisers for tests, documentation and the papers' toy examples."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from models.block_run import context_of
from models.denoiser import Denoiser, Prediction


class WholeCanvas(Denoiser):
    """A denoiser of whole canvases: there is nothing that a scoring head could tap, and nothing to keep in a cache."""

    @abstractmethod
    def logits_at(self, tokens: Tensor, rows: Tensor, attention_mask: Tensor | None) -> Tensor:
        """Logits of the rows asked for.

        Args:
            tokens: canvases [N, L].
            rows: [N, L], the positions asked for, M in all.
            attention_mask: [N, L], False on padding; None means no padding.

        Returns:
            [M, V].
        """

    def forward(
        self,
        tokens: Tensor,
        *,
        attention_mask: Tensor | None = None,
        rows: Tensor | None = None,
        taps: Sequence[int] = (),
        owner: Tensor | None = None,
        refresh: Tensor | None = None,
    ) -> Prediction:
        """See `Denoiser.forward`."""
        rows = torch.ones_like(tokens, dtype=torch.bool) if rows is None else rows
        positions = torch.ones_like(tokens) if attention_mask is None else attention_mask.long()
        return Prediction(self.logits_at(tokens, rows, attention_mask), rows, positions.sum(-1))


class Toy(WholeCanvas):
    """A denoiser that computes every position and gives the rows asked for."""

    @abstractmethod
    def everywhere(self, tokens: Tensor) -> Tensor:
        """Logits of every position, [N, L, V]."""

    def logits_at(self, tokens: Tensor, rows: Tensor, attention_mask: Tensor | None) -> Tensor:
        """See `WholeCanvas.logits_at`."""
        return self.everywhere(tokens)[rows]

    def shadowed(
        self, tokens: Tensor, shadows: Tensor, *, attention_mask: Tensor | None = None, rows: Tensor | None = None
    ) -> Prediction:
        """See `Denoiser.shadowed`; a shadow row reads the canvas with its own position masked."""
        rows = torch.ones_like(tokens, dtype=torch.bool) if rows is None else rows
        here = nn.functional.one_hot(shadows, tokens.shape[1]).bool()  # [N, S, L]
        masked = tokens.unsqueeze(1).masked_fill(here, self.mask_id)
        blind = torch.unflatten(self.everywhere(masked.flatten(0, 1)), 0, tuple(here.shape[:2]))
        shown = (here.unsqueeze(-1) & (tokens != self.mask_id)[:, None, :, None]).any(1)
        logits = torch.where(shown, torch.where(here.unsqueeze(-1), blind, 0.0).sum(1), self.everywhere(tokens))
        return Prediction(logits[rows], rows, context_of(tokens, attention_mask).sum(-1) + shadows.shape[1])

    def attended(
        self, tokens: Tensor, blocks: int, *, attention_mask: Tensor | None = None, rows: Tensor | None = None
    ) -> Prediction:
        """See `Denoiser.attended`; there is no attention here, and it is taken to be uniform."""
        context = context_of(tokens, attention_mask)
        seen = (context.unsqueeze(-1) & context.unsqueeze(-2)).float()
        prediction: Prediction = self(tokens, attention_mask=attention_mask, rows=rows)
        return replace(prediction, attention=seen / context.sum(-1)[:, None, None])


class TableDenoiser(Toy):
    """Independent positions: logits[i] is a fixed row of a table, whatever is revealed."""

    def __init__(self, table: Tensor, *, mask_id: int, eos_id: int | None = None) -> None:
        super().__init__()
        self.table = nn.Buffer(table.float())
        self.mask_id, self.eos_id, self.vocab_size, self.max_length = mask_id, eos_id, table.shape[-1], 4096

    def everywhere(self, tokens: Tensor) -> Tensor:
        """Logits of every position, [N, L, V]."""
        return self.table[-tokens.shape[1] :].expand(*tokens.shape, -1)


class GroupDenoiser(Toy):
    """ETE's toy: groups of `size` positions that all equal one fair bit; c = .5 until one of them is revealed, then 1.

    Vocabulary {0, 1, mask = 2}; position i (from the right end of the canvas) belongs to group i // size.
    """

    def __init__(self, groups: int, size: int, *, certainty: float = 0.999999) -> None:
        super().__init__()
        self.groups, self.size, self.certainty = groups, size, certainty
        self.mask_id, self.eos_id, self.vocab_size, self.max_length = 2, None, 3, 4096

    def everywhere(self, tokens: Tensor) -> Tensor:
        """Logits of every position, [N, L, V]."""
        canvas = torch.unflatten(tokens[:, -self.groups * self.size :], 1, (self.groups, self.size))
        ones, zeros = (canvas == 1).any(-1), (canvas == 0).any(-1)
        p1 = torch.where(ones, self.certainty, torch.where(zeros, 1 - self.certainty, 0.5))
        p1 = p1.repeat_interleave(self.size, 1)
        p1 = nn.functional.pad(p1, (tokens.shape[1] - p1.shape[1], 0), value=0.5)
        return torch.stack([1 - p1, p1, torch.zeros_like(p1)], -1).log()


class JointDenoiser(Toy):
    """Any joint distribution of a few tokens, p[v_1, .., v_L], every conditional by enumeration; mask id V."""

    def __init__(self, joint: Tensor) -> None:
        super().__init__()
        self.length, self.mask_id, self.eos_id, self.max_length = joint.ndim, joint.shape[0], None, 4096
        self.vocab_size = self.mask_id + 1
        self.joint = nn.Buffer((joint / joint.sum()).flatten())
        self.sequences = nn.Buffer(torch.cartesian_prod(*[torch.arange(size) for size in joint.shape]))

    def fits(self, tokens: Tensor) -> Tensor:
        """Which sequences agree with what is revealed, [..., V^L]."""
        canvas = tokens[..., -self.length :].unsqueeze(-2)
        return ((canvas == self.sequences) | (canvas == self.mask_id)).all(-1)

    def everywhere(self, tokens: Tensor) -> Tensor:
        """Logits of every position, [N, L, V]."""
        given = self.fits(tokens) * self.joint
        one_hot = nn.functional.one_hot(self.sequences, self.vocab_size).to(given.dtype)
        p = torch.einsum("ns,slv->nlv", given / given.sum(-1, keepdim=True), one_hot)
        return nn.functional.pad(p, (0, 0, tokens.shape[1] - self.length, 0)).log().float()
