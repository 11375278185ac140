"""The cascade of a commit: what the base would say of the positions left, foretold without its next forward.

ETE's look-ahead runs the base on a canvas with the commit in place. Here only the last blocks run again, with LoRA of their own
and the committed tokens put into their input, and are fitted to the distributions of that forward.
"""

from __future__ import annotations

import copy
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from models.denoiser import Denoiser, Tap
from models.engine.stream import predicting as states_of
from models.engine.stream import run_stream
from models.engine.window import WideTap
from models.heads.saved_part import check_base, load_fitted, read_fitted, save_fitted
from models.heads.side_stream import SideStream, predicting, with_lora

CASCADE = "cascade"
"""The folder of a cascade, inside that of its head."""
FILE = "cascade.safetensors"
LEAST = -100.0  # log-probability of a candidate that is none


@dataclass(frozen=True)
class CascadeConfig:
    """What a cascade is made of.

    Args:
        blocks: K, how many of the base's last blocks run again.
        rank, alpha: of the LoRA.
        base: fingerprint of the base it is bound to.
    """

    blocks: int = 1
    rank: int = 32
    alpha: int = 64
    base: str = ""

    def __post_init__(self) -> None:
        for name in ("blocks", "rank", "alpha"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")


class Cascade(nn.Module):
    """Distributions of the positions left, once some of a round's tokens are committed.

    p(x_j | x, x_S) over the five likeliest candidates of p(x_j | x) and the rest of the vocabulary as one: nothing of the size of
    the vocabulary is computed. Unfitted it says p(x_j | x), whatever is committed.
    """

    base: Denoiser
    folded: nn.Module | None

    def __init__(self, config: CascadeConfig, denoiser: Denoiser) -> None:
        super().__init__()
        self.config = config
        count, width = len(denoiser.blocks), denoiser.hidden_size
        stream = SideStream(denoiser, config.blocks)
        self.taps = tuple(range(count - config.blocks, count))
        self.stream = with_lora(stream, rank=config.rank, alpha=config.alpha, dropout=0.0, own_keys=True)
        self.inject = nn.Linear(width, width, bias=False)
        self.rest = nn.Linear(width, 1)
        for own in (self.inject.weight, self.rest.weight, self.rest.bias):
            nn.init.zeros_(own)
        self.__dict__["base"] = denoiser  # its embedding and LM head are read, and are no part of this module
        self.__dict__["folded"] = None
        cast(Any, self).register_load_state_dict_post_hook(_unfold)

    def fold(self) -> Cascade:
        """Read from now on with the LoRA added into a copy of the blocks, for a quarter less time a look; `train()` ends it."""
        self.eval()
        self.__dict__["folded"] = cast(Any, copy.deepcopy(self.stream)).merge_and_unload()
        return self

    def train(self, mode: bool = True) -> Cascade:
        """Training mode needs the LoRA apart."""
        self.__dict__["folded"] = None if mode else self.folded
        return super().train(mode)

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        if self.folded is not None:  # no part of this module, but moved with it
            cast(Any, self.folded)._apply(fn, recurse)
        return cast(Any, super())._apply(fn, recurse)

    def forward(
        self,
        taps: tuple[Tap, ...],
        rows: Bool[Tensor, "N L"],
        committed: Bool[Tensor, "N L"],
        token: Int[Tensor, "N L"],
        top_tokens: Int[Tensor, "N L 5"],
        top_log_probs: Float[Tensor, "N L 5"],
        log_normaliser: Float[Tensor, "N L"],
    ) -> Float[Tensor, "M 6"]:
        """Log-probabilities at the rows that are not committed, packed in row-major order.

        Args:
            taps: of the forward that predicted `rows`, those of the last K blocks last.
            rows: positions predicted.
            committed: those of them whose token is committed.
            token: that token; any elsewhere.
            top_tokens, top_log_probs: the candidates of that forward.
            log_normaliser: log sum exp of its logits.

        Returns:
            log p of the five candidates in their order, and of all other tokens together.
        """
        taps = taps[-self.config.blocks :]
        left = rows & ~committed
        canvas, column = predicting(taps[0], left)
        runs = committed.index_put((canvas, column), torch.ones_like(canvas, dtype=torch.bool))
        place = runs.nonzero().unbind(-1)
        hidden = taps[0].hidden[place]
        added = self.inject(self.base.token_embedding(token[place].clamp(min=0)).to(self.inject.weight.dtype))
        hidden = hidden + (added * committed[place].unsqueeze(-1)).to(hidden.dtype)
        after = (self.folded or self.stream)(taps, place, hidden)
        after = taps[0].hidden.new_zeros(taps[0].hidden.shape).index_put(place, after)[canvas, column]
        known = top_log_probs[left]
        logits = torch.linalg.vecdot(self.base.lm_head.weight[top_tokens[left]], after.unsqueeze(1)).float()
        logits = (logits - log_normaliser[left].unsqueeze(-1)).masked_fill(known <= LEAST, LEAST)
        rest = rest_of(known) + self.rest(after.to(self.rest.weight.dtype))
        return torch.cat([logits, rest], -1).log_softmax(-1)

    def foretell_wide(
        self,
        taps: tuple[WideTap, ...],
        rows: Bool[Tensor, "N L"],
        committed: Bool[Tensor, "N L"],
        token: Int[Tensor, "N L"],
        top_tokens: Int[Tensor, "N L 5"],
        top_log_probs: Float[Tensor, "N L 5"],
        log_normaliser: Float[Tensor, "N L"],
    ) -> Float[Tensor, "N W 6"]:
        """The same at every place of the window of a forward by the engine; meaningless where nothing is left."""
        taps = taps[-self.config.blocks :]
        tap = taps[0]
        taken, left = (tap.pick(chosen) & tap.inside for chosen in (committed, rows & ~committed))
        own = torch.nn.functional.pad(taken, (tap.shift, 0))
        states = tap.states
        hidden = tap.hidden[tap.canvas.unsqueeze(-1), states]
        embedded = torch.nn.functional.embedding(token.gather(1, states).clamp(min=0), self.base.token_embedding.weight)
        added = self.inject(embedded.to(self.inject.weight.dtype)) * own.unsqueeze(-1)
        after = run_stream(
            self.folded or self.stream, taps, own | states_of(tap, left), hidden + added.to(hidden.dtype)
        )
        after = after.gather(1, tap.predictor.unsqueeze(-1).expand(-1, -1, after.shape[-1]))
        known = tap.pick(top_log_probs)
        logits = torch.linalg.vecdot(self.base.lm_head.weight[tap.pick(top_tokens)], after.unsqueeze(2)).float()
        logits = (logits - tap.pick(log_normaliser).unsqueeze(-1)).masked_fill(known <= LEAST, LEAST)
        rest = rest_of(known) + self.rest(after.to(self.rest.weight.dtype))
        return torch.cat([logits, rest], -1).log_softmax(-1)


def _unfold(cascade: Cascade, _: object) -> None:
    cascade.__dict__["folded"] = None


def rest_of(log_probs: Float[Tensor, "*M 5"]) -> Float[Tensor, "*M 1"]:
    """Log-probability of all other tokens."""
    return (-log_probs.exp().sum(-1, keepdim=True)).clamp(min=-1 + 1e-7).log1p()


def own_state(cascade: Cascade) -> dict[str, Tensor]:
    """The tensors that are neither the base's nor the adapter's."""
    return {name: tensor for name, tensor in cascade.state_dict().items() if not name.startswith("stream.")}


def save_cascade(cascade: Cascade, folder: Path) -> None:
    """Write `cascade.safetensors` and PEFT's `adapter_config.json` and `adapter_model.safetensors`."""
    save_fitted(folder / FILE, own_state(cascade), asdict(cascade.config), cascade.stream)


def load_cascade(folder: Path, denoiser: Denoiser) -> Cascade:
    """Read a cascade back onto its base.

    Raises:
        ValueError: if it is broken, foreign or of another base.
    """
    config = read_fitted(folder / FILE, "cascade", lambda raw: CascadeConfig(**raw))
    check_base("cascade", folder, config.base, denoiser)
    cascade = Cascade(config, denoiser)
    load_fitted(cascade, own_state(cascade), folder / FILE, cascade.stream)
    cascade.to(denoiser.device).eval()
    exact = denoiser.lm_head.weight.dtype == torch.float32  # half precision would round much of the LoRA away
    return cascade.fold() if exact else cascade
