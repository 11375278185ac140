"""The cascade of a commit: what the base would say of the positions left, foretold without its next forward.

ETE's look-ahead runs the base on a canvas with the commit in place. Here only the last blocks run again, with LoRA of their own
and the committed tokens put into their input, and are fitted to the distributions of that forward.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, cast

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from models.checkpoints.manifest import check_files, read_manifest, settle
from models.denoiser import Denoiser, Tap
from models.engine.graphs import compiled
from models.engine.stream import run_stream, weights_of
from models.engine.window import WideTap
from models.heads.config import require_whole
from models.heads.foretelling import distribution, enter, leave, shrunk
from models.heads.saved_part import check_base, check_shapes, load_fitted, read_fitted, require_bound, write_fitted
from models.heads.side_stream import SideStream, predicting, with_lora

CASCADE = "cascade"
"""The folder of a cascade, inside that of its head."""
FILE = "cascade.safetensors"


@dataclass(frozen=True)
class CascadeConfig:
    """What a cascade is made of.

    Args:
        blocks: K, how many of the base's last blocks run again.
        rank, alpha: of the LoRA.
        base: fingerprint of the base it is bound to.
        foretold, seen: risks that it foretells, ascending, and what they came to at most on held-out states; between them risks are
            read off in logarithms. None of either trusts it as it is.
    """

    blocks: int = 1
    rank: int = 32
    alpha: int = 64
    base: str = ""
    foretold: tuple[float, ...] = ()
    seen: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        for name in ("blocks", "rank", "alpha"):
            require_whole(name, getattr(self, name), least=1)
        for name in ("foretold", "seen"):
            risks = getattr(self, name)
            if list(risks) != sorted(risks) or not all(0 < risk <= 1 for risk in risks):
                raise ValueError(f"{name} must be ascending risks in (0, 1], got {risks}")
        if len(self.foretold) != len(self.seen):
            raise ValueError(f"seen must be as many as foretold, {len(self.foretold)}, got {len(self.seen)}")


class Cascade(nn.Module):
    """Distributions of the positions left, once some of a round's tokens are committed.

    p(x_j | x, x_S) over the five likeliest candidates of p(x_j | x) and the rest of the vocabulary as one: nothing of the size of
    the vocabulary is computed. Unfitted it says p(x_j | x), whatever is committed.
    """

    base: Denoiser
    folded: nn.Module | None
    curve: Tensor

    def __init__(self, config: CascadeConfig, denoiser: Denoiser) -> None:
        super().__init__()
        self.config = config
        count, width = len(denoiser.blocks), denoiser.hidden_size
        stream = SideStream(denoiser, config.blocks)
        self.taps = tuple(range(count - config.blocks, count))
        self.stream = with_lora(stream, rank=config.rank, alpha=config.alpha, dropout=0.0, own_keys=True)
        self.inject = nn.Linear(width, width, bias=False)
        self.rest = nn.Linear(width, 1)
        for parameter in (self.inject.weight, self.rest.weight, self.rest.bias):
            nn.init.zeros_(parameter)
        self.curve = nn.Buffer(_curve(config), persistent=False)
        self.__dict__["base"] = denoiser  # its embedding and LM head are read, and are no part of this module
        self.__dict__["folded"] = None
        cast(Any, self).register_load_state_dict_post_hook(_unfold)

    def trusting(self, foretold: Sequence[float], seen: Sequence[float]) -> Cascade:
        """Read from now on with risks as held-out states bear them out (see CascadeConfig)."""
        self.config = replace(self.config, foretold=tuple(foretold), seen=tuple(seen))
        self.curve = _curve(self.config).to(self.curve.device)
        return self

    def fold(self) -> Cascade:
        """Read from now on with the LoRA added into a copy of the blocks, for a quarter less time a look; `train()` ends it.

        In half precision that changes fewer texts than half precision itself does (docs/speed.md).
        """
        self.eval()
        self.__dict__["folded"] = cast(Any, copy.deepcopy(self.stream)).merge_and_unload()
        weights_of(self.folded)  # lays them out now: graphs know them by where they lie
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
        *,
        believed: bool = False,
    ) -> Float[Tensor, "M 6"]:
        """Log-probabilities at the rows that are not committed, packed in row-major order.

        Args:
            taps: of the forward that predicted `rows`, those of the last K blocks last.
            rows: positions predicted.
            committed: those of them whose token is committed.
            token: that token; any elsewhere.
            top_tokens, top_log_probs: the candidates of that forward.
            log_normaliser: log sum exp of its logits.
            believed: as the cascade says them, whatever held-out states bear out: for drafts, which a forward checks.

        Returns:
            log p of the five candidates in their order, and of all other tokens together.
        """
        after, left = self.states(taps, rows, committed, token)
        figures = (top_tokens[left], top_log_probs[left], log_normaliser[left])
        log_probs = distribution(after, figures, (self.base.lm_head.weight, self.rest.weight, self.rest.bias))
        as_said = believed or self.training or not self.config.foretold
        return log_probs if as_said else shrunk(log_probs, self.curve)

    def states(
        self,
        taps: tuple[Tap, ...],
        rows: Bool[Tensor, "N L"],
        committed: Bool[Tensor, "N L"],
        token: Int[Tensor, "N L"],
    ) -> tuple[Float[Tensor, "M D"], Bool[Tensor, "N L"]]:
        """Hidden states after the final norm at the rows that are not committed, packed, and where these are.

        Args:
            taps: as in `forward`.
            rows: positions predicted.
            committed: those of them whose token is committed.
            token: that token; any elsewhere.
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
        return taps[0].hidden.new_zeros(taps[0].hidden.shape).index_put(place, after)[canvas, column], left

    def foretell_wide(
        self,
        taps: tuple[WideTap, ...],
        rows: Bool[Tensor, "N L"],
        committed: Bool[Tensor, "N L"],
        token: Int[Tensor, "N L"],
        top_tokens: Int[Tensor, "N L 5"],
        top_log_probs: Float[Tensor, "N L 5"],
        log_normaliser: Float[Tensor, "N L"],
        *,
        believed: bool = False,
    ) -> Float[Tensor, "N W 6"]:
        """The same at every place of the window of a forward by the engine; meaningless where nothing is left.

        Args:
            taps: windows of the last blocks.
            rows: positions that the forward predicted.
            committed: those that are taken for committed.
            token: what they hold.
            top_tokens, top_log_probs: the five candidates of each position.
            log_normaliser: of its logits.
            believed: as in `forward`.
        """
        taps = taps[-self.config.blocks :]
        tap = taps[0]
        place = (tap.rows, tap.inside, tap.states, tap.predictor)
        weights = (self.base.token_embedding.weight, self.inject.weight)
        runs, hidden = compiled(enter, rows.device)(
            tap.hidden, tap.canvas, place, tap.shift, rows, committed, token, weights
        )
        after = run_stream(self.folded or self.stream, taps, runs, hidden)
        figures = (top_tokens, top_log_probs, log_normaliser)
        out = (self.base.lm_head.weight, self.rest.weight, self.rest.bias)
        curve = self.curve[:, :0] if believed else self.curve
        return compiled(leave, rows.device)(after, (tap.rows, tap.predictor), figures, out, curve)


def _curve(config: CascadeConfig) -> Float[Tensor, "2 R"]:
    """`foretold` and `seen` in logarithms."""
    return torch.tensor([config.foretold, config.seen]).log()


def _unfold(cascade: Cascade, _: object) -> None:
    cascade.__dict__["folded"] = None


def own_state(cascade: Cascade) -> dict[str, Tensor]:
    """The tensors that are neither the base's nor the adapter's."""
    return {name: tensor for name, tensor in cascade.state_dict().items() if not name.startswith("stream.")}


def _config_of(raw: dict[str, Any]) -> CascadeConfig:
    values: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in raw.items()}
    return CascadeConfig(**values)


def write_cascade(cascade: Cascade, folder: Path) -> None:
    """Write `cascade.safetensors` and PEFT's `adapter_config.json` and `adapter_model.safetensors` into a folder of `saving`."""
    config = {name: value for name, value in asdict(cascade.config).items() if value != ()}
    write_fitted(folder, FILE, own_state(cascade), config, cascade.stream)


def load_cascade(folder: Path, denoiser: Denoiser, full: str | None = None) -> Cascade:
    """Read a cascade back onto its base.

    Args:
        folder: of the cascade, as `write_cascade` fills it.
        denoiser: the base.
        full: fingerprint over every byte of its own base; None reads it from the folder.

    Raises:
        ValueError: if it is broken, foreign or of another base.
    """
    settle(folder)
    full = read_manifest(folder).get("base", "") if full is None else full
    config = read_fitted(folder / FILE, "cascade", _config_of)
    check_base("cascade", folder, config.base, denoiser, full)
    with torch.device("meta"):
        width = denoiser.hidden_size
        own = {
            "inject.weight": torch.empty(width, width),
            "rest.weight": torch.empty(1, width),
            "rest.bias": torch.empty(1),
        }
    check_shapes(folder / FILE, own, config.rank)
    require_bound("cascade", folder, config.base, denoiser)
    cascade = Cascade(config, denoiser)
    load_fitted(cascade, own_state(cascade), folder / FILE, cascade.stream)
    check_files(folder)
    return cascade.to(denoiser.device).fold()
