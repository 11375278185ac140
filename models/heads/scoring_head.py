"""The scoring head: for every masked position, how risky its candidate is and how large a cascade committing it sets off.

It reads the forward that was run anyway and never feeds back: the base logits are bit-identical with the head on or off.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from models.checkpoints.manifest import check_files, read_manifest, saving, settle
from models.complaints import shown
from models.denoiser import Denoiser, Tap
from models.engine.graphs import compiled
from models.engine.stream import run_stream
from models.engine.window import WideTap
from models.heads.cascade import CASCADE, FILE, Cascade, load_cascade, write_cascade
from models.heads.config import HeadConfig
from models.heads.conflict_output import ConflictOutput, Conflicts
from models.heads.defaults import Defaults, read_defaults, write_defaults
from models.heads.saved_part import check_base, check_shapes, load_fitted, read_fitted, require_bound, write_fitted
from models.heads.side_stream import SideStream, predicting, with_lora
from models.heads.window_scores import prior_of, scores_of, states_asked

HEAD_FILE = "head.safetensors"


@dataclass(frozen=True)
class Scores:
    """What a head says of every position; 0 outside the rows asked for.

    Attributes:
        risk_logit: logit of the probability that the candidate token is wrong.
        gain: predicted net cascade of committing it, in positions.
        conflicts: which candidates change each other, of a head with that output; in the window of a forward by the engine.
    """

    risk_logit: Float[Tensor, "*N L"]
    gain: Float[Tensor, "*N L"]
    conflicts: Conflicts | None = None

    @property
    def risk(self) -> Float[Tensor, "*N L"]:
        """r_i in (0, 1)."""
        return self.risk_logit.sigmoid()

    @property
    def broken(self) -> Bool[Tensor, ""]:
        """Whether a risk or a gain is NaN or infinite: a tensor of the head is damaged, or overflows."""
        return ~(self.risk_logit.isfinite() & self.gain.isfinite()).all()


class FeatureLayers(nn.Module):
    """Two small attention layers over the rows; positions enter as places on the canvas (sines), tokens not at all."""

    def __init__(self, features: int, width: int) -> None:
        super().__init__()
        self.inward = nn.Linear(features, width)
        layer = nn.TransformerEncoderLayer(width, 4, 2 * width, dropout=0.0, batch_first=True, norm_first=True)
        self.layers = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.norm = nn.LayerNorm(width)

    def forward(self, features: Float[Tensor, "N L F"], rows: Bool[Tensor, "N L"]) -> Float[Tensor, "N L W"]:
        """Hidden states of the rows, which attend to each other alone; meaningless elsewhere."""
        hidden = self.inward(features)
        hidden = hidden + _sines(hidden.shape[1], hidden.shape[2], hidden.device)
        seen = rows | ~rows.any(-1, keepdim=True)  # a canvas without rows attends to itself rather than to nothing
        normed: Tensor = self.norm(self.layers(hidden, src_key_padding_mask=~seen))
        return normed


def _sines(length: int, width: int, device: torch.device) -> Float[Tensor, "L W"]:
    """Sinusoidal positions counted from the right end: the canvas keeps its place whatever the prompt's length."""
    position = torch.arange(length - 1, -1, -1, device=device, dtype=torch.float).unsqueeze(1)
    rates = torch.exp(torch.arange(0, width, 2, device=device) * (-9.21 / width))
    return torch.cat([(position * rates).sin(), (position * rates).cos()], -1)


class ScoringHead(nn.Module):
    """Risk and gain of every masked position from one forward's features and taps.

    risk_logit = log(1 - c) - log c + trust * correction, which starts at 0: an untrained head is the confidence itself, at every
    temperature.
    """

    mean: Tensor
    spread: Tensor

    def __init__(self, config: HeadConfig, denoiser: Denoiser | None = None) -> None:
        super().__init__()
        self.config = config
        count = len(config.feature_names)
        self.mean = nn.Buffer(torch.zeros(count))
        self.spread = nn.Buffer(torch.ones(count))
        self.stream: nn.Module | None = None
        self.layers: FeatureLayers | None = None
        self.first_block = 0
        self.stored_bytes = "" if denoiser is None else denoiser.stored_bytes
        inward = count
        if config.reads_hidden:
            if denoiser is None:
                raise ValueError(f"variant {shown(config.variant)} needs a base model, got none")
            self.first_block = len(denoiser.blocks) - config.blocks
            self.stream = SideStream(denoiser, config.blocks, fork=config.variant == "fork")
            inward += denoiser.hidden_size
            if config.variant == "lora":
                self.stream = with_lora(self.stream, rank=config.rank, alpha=config.alpha, dropout=config.dropout)
        elif config.variant == "features":
            self.layers = FeatureLayers(count, config.width)
            inward += config.width
        hidden_width = 0 if config.variant == "linear" else config.width
        self.readout = _readout(inward, hidden_width)
        self.pairs = ConflictOutput(inward, config.pairs, config.reach) if config.pairs else None
        self.cascade: Cascade | None = None
        self.defaults: Defaults | None = None

    @property
    def taps(self) -> tuple[int, ...]:
        """Base blocks the head reads, the last ones."""
        count = self.config.blocks if self.config.reads_hidden else 0
        return tuple(range(self.first_block, self.first_block + count))

    @property
    def taps_ahead(self) -> tuple[int, ...]:
        """Those that the head and its cascade read."""
        return max(self.taps, () if self.cascade is None else self.cascade.taps, key=len)

    def normalise_by(self, features: Float[Tensor, "M F"]) -> None:
        """Set mean and spread of the features from a sample; one that does not vary there keeps its own unit elsewhere."""
        self.mean.copy_(features.mean(0))
        spread = features.std(0, correction=0)
        self.spread.copy_(torch.where(spread < 1e-3, 1.0, spread))

    def forward(
        self,
        features: Float[Tensor, "N L F"],
        rows: Bool[Tensor, "N L"],
        token: Int[Tensor, "N L"],
        taps: tuple[Tap | WideTap, ...] = (),
    ) -> Scores:
        """Score the candidates of the positions in `rows`; a side-stream computes those alone, the small heads all of them.

        Args:
            features: of every position, in the config's order.
            rows: the positions scored.
            token: the candidates.
            taps: of the base's last blocks, for heads that read them.
        """
        if self.stream is not None and isinstance(taps[-1], WideTap):
            return self._in_window(taps[-self.config.blocks :], features, rows, token)
        scaled = (features - self.mean) / self.spread
        correction = features.new_zeros(*rows.shape, 2)
        if self.stream is not None:
            inward, correction = self._read_stream(taps[-self.config.blocks :], scaled, rows, correction)
        else:
            inward = scaled if self.layers is None else torch.cat([scaled, self.layers(scaled, rows)], -1)
            correction = torch.where(rows.unsqueeze(-1), self.readout(inward), correction)
            inward = in_window(taps, inward)
        log_risk = features[..., self.config.feature_names.index("log_risk")]
        prior = prior_of(log_risk).masked_fill(~rows, 0.0)
        asked = (in_window(taps, one) for one in (rows, prior, token))
        conflicts = None if self.pairs is None else self.pairs(inward, *asked)
        risk_logit = prior + self.config.trust * correction[..., 0]
        return Scores(risk_logit=risk_logit, gain=correction[..., 1], conflicts=conflicts)

    def _read_stream(
        self, taps: tuple[Any, ...], scaled: Tensor, rows: Bool[Tensor, "N L"], correction: Float[Tensor, "N L 2"]
    ) -> tuple[Tensor, Float[Tensor, "N L 2"]]:
        """What the read-out reads, packed, and what it says of `rows`."""
        assert self.stream is not None
        hidden = self.stream(taps, predicting(taps[0], rows)).to(scaled.dtype)
        inward = torch.cat([scaled[rows], hidden], -1)
        return inward, correction.masked_scatter(rows.unsqueeze(-1), self.readout(inward))

    def _in_window(
        self, taps: tuple[Any, ...], features: Tensor, rows: Bool[Tensor, "N L"], token: Int[Tensor, "N L"]
    ) -> Scores:
        """The same scores by an engine's window, conflicts in the window alone."""
        tap, device = taps[0], rows.device
        runs = compiled(states_asked, device)(rows, tap.rows, tap.inside, tap.predictor, tap.shift)
        after = run_stream(self.stream, taps, runs)
        scores = compiled(scores_of, device)(self, features, rows, token, after, (tap.rows, tap.predictor, tap.back))
        return Scores(*scores)


def in_window(taps: tuple[Any, ...], values: Tensor) -> Tensor:
    """[N, L, ...] at the places of the window, where an engine made the forward; else as they are."""
    return taps[-1].pick(values) if taps and isinstance(taps[-1], WideTap) else values


def _readout(inward: int, width: int) -> nn.Module:
    last = nn.Linear(width or inward, 2)
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    return nn.Sequential(nn.Linear(inward, width), nn.SiLU(), last) if width else last


def own_state(head: ScoringHead) -> dict[str, Tensor]:
    """The head's tensors without the base's, the adapter's and the cascade's; a fork's blocks are its own."""
    foreign = ("cascade.",) if head.config.variant == "fork" else ("cascade.", "stream.")
    return {name: tensor for name, tensor in head.state_dict().items() if not name.startswith(foreign)}


def save_head(head: ScoringHead, folder: Path) -> None:
    """Write `head.safetensors`, PEFT's files of a LoRA head beside it, and the cascade into a folder of its own: all or nothing."""
    config = {name: value for name, value in asdict(head.config).items() if name not in ("pairs", "reach") or value}
    if config["trust"] == 1:
        del config["trust"]
    with saving(folder, "head", {"base": head.stored_bytes}) as aside:
        write_fitted(aside, HEAD_FILE, own_state(head), config, _lora_of(head))
        if head.cascade is not None:
            write_cascade(head.cascade, aside / CASCADE)
        if head.defaults is not None:
            write_defaults(head.defaults, aside)


def read_config(folder: Path) -> HeadConfig:
    """The config of a saved head; ValueError where there is none or it cannot be read."""
    settle(folder)
    return read_fitted(
        folder / HEAD_FILE,
        "scoring head",
        lambda raw: HeadConfig(**{**raw, "feature_names": tuple(raw["feature_names"])}),
    )


def load_head(folder: Path, denoiser: Denoiser) -> ScoringHead:
    """Read a head back and put it on its base; refuses the head of another base, and one that is damaged."""
    config = read_config(folder)
    saved = read_manifest(folder)
    full = saved.get("base", "")
    if config.reads_hidden:
        require_bound("head", folder, config.base, denoiser)
    check_base("head", folder, config.base, denoiser, full)
    lora = config.variant == "lora"
    if config.variant != "fork":  # whose blocks are as large as the base's
        with torch.device("meta"):
            shaped = ScoringHead(replace(config, variant="hidden") if lora else config, denoiser)
        check_shapes(folder / HEAD_FILE, own_state(shaped), config.rank if lora else None)
    head = ScoringHead(config, denoiser)
    load_fitted(head, own_state(head), folder / HEAD_FILE, _lora_of(head))
    if not bool((head.spread > 0).all()):
        raise ValueError(f"spread of the head in {folder} must be above 0, got {float(head.spread.min())}")
    if f"{CASCADE}/{FILE}" in saved["files"] if saved else (folder / CASCADE).is_dir():
        head.cascade = load_cascade(folder / CASCADE, denoiser, full)
    check_files(folder)
    head.defaults = read_defaults(folder)
    return head.to(denoiser.device).eval()


def _lora_of(head: ScoringHead) -> nn.Module | None:
    return head.stream if head.config.variant == "lora" else None
