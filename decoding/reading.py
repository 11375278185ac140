"""What a round reads off the distributions: for every masked position its candidate token and how sure the model is."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields, replace
from itertools import repeat
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import logsigmoid

from decoding.calls.draws import Chances, chances_of
from decoding.sampling import Draws, Sampling, draw, draw_more
from models.denoiser import Prediction, Tap
from models.engine.window import WideTap

TOP = 5  # log p1..p5 are the features of a scoring head
LOGITS = {"cpu": 1 << 18}  # read at a time: what a core's cache holds
ASKED = ("drift", "attention")  # of a reading, only where a policy asks
MANY_LOGITS = 1 << 25  # on any other device: few launches, and no more memory than a vocabulary of 150k can bear


def tiny() -> float:
    """What keeps a logarithm finite; no constant of the module, see `models.engine.figures.least`."""
    return torch.finfo(torch.float32).tiny


@dataclass(frozen=True)
class Reading:
    """Dense per-position figures; outside `rows` confidences are 0 and tokens are -1. `...` is B, or B K for branches.

    Attributes:
        rows: positions that this forward predicted.
        token: the candidate x̂ of each position.
        confidence: c = p(x̂) under softmax(logits), float32, whatever the temperature.
        log_risk: log(1 - c), computed without forming 1 - c.
        entropy: of softmax(logits), in nats.
        top_log_probs, top_tokens: the five largest log-probabilities of possible candidates, and whose they are.
        log_normaliser: log sum exp of the logits.
        noise: uniform draws in [0, 1), or zeros where the policy has no random order.
        draws: more tokens of every position, where a policy asks for them; else None.
        drift: KL(p || the p of the forward before) in nats, infinite where there was none; None unless a policy asks for it.
        attention: at [i, j] what position i reads of position j, the mean over heads and blocks; 0 for padding; None unless a
            policy asks for it.
        taps: what a scoring head reads of the base forward.
    """

    rows: Bool[Tensor, "... L"]
    token: Int[Tensor, "... L"]
    confidence: Float[Tensor, "... L"]
    log_risk: Float[Tensor, "... L"]
    entropy: Float[Tensor, "... L"]
    top_log_probs: Float[Tensor, "... L 5"]
    top_tokens: Int[Tensor, "... L 5"]
    log_normaliser: Float[Tensor, "... L"]
    noise: Float[Tensor, "... L"]
    taps: tuple[Tap | WideTap, ...] = ()
    draws: Draws | None = None
    drift: Float[Tensor, "... L"] | None = None
    attention: Float[Tensor, "... L L"] | None = None

    @property
    def log_confidence(self) -> Float[Tensor, "... L"]:
        """log c, exact where c rounds to 1: log(1 - (1 - c)) there."""
        low = self.confidence.clamp(min=tiny()).log()
        return torch.where(self.confidence > 0.5, (-self.log_risk.exp()).log1p(), low)

    @property
    def log_odds(self) -> Float[Tensor, "... L"]:
        """log c - log(1 - c), the logit of the candidate less the log of all others: c in an order that does not tie near 1."""
        return self.log_confidence - self.log_risk

    @property
    def margin(self) -> Float[Tensor, "... L"]:
        """p1 - p2, the top-2 margin."""
        return self.top_log_probs[..., 0].exp() - self.top_log_probs[..., 1].exp()

    @property
    def margin_odds(self) -> Float[Tensor, "... L"]:
        """log m - log(1 - m) of the margin m, which does not tie near 1 either."""
        first, second = self.top_log_probs[..., 0], self.top_log_probs[..., 1]
        margin = -(second - first).expm1() * first.exp()
        return margin.clamp(min=tiny()).log() - (self._beside_top + second.exp()).log()

    @property
    def top_odds(self) -> Float[Tensor, "... L"]:
        """log p1 - log(1 - p1)."""
        return self.top_log_probs[..., 0] - self._beside_top.log()

    @property
    def _beside_top(self) -> Float[Tensor, "... L"]:
        """1 - p1, from the risk where the candidate is the most likely token."""
        wrong = torch.where(
            self.token == self.top_tokens[..., 0], self.log_risk.exp(), -self.top_log_probs[..., 0].expm1()
        )
        return wrong.clamp(min=tiny())

    @staticmethod
    def empty(shape: tuple[int, ...], device: torch.device) -> Reading:
        """A reading of no position at all."""
        zeros = torch.zeros(shape, device=device)
        return Reading(
            rows=torch.zeros(shape, dtype=torch.bool, device=device),
            token=torch.full(shape, -1, dtype=torch.long, device=device),
            confidence=zeros,
            log_risk=zeros,
            entropy=zeros,
            top_log_probs=zeros.unsqueeze(-1).expand(*shape, TOP),
            top_tokens=zeros.unsqueeze(-1).expand(*shape, TOP).long(),
            log_normaliser=zeros,
            noise=zeros,
        )

    def scatter(self, index: Int[Tensor, "N 2"], shape: tuple[int, int]) -> Reading:
        """Spread the readings of N canvases over a [B, K] grid; places without a canvas read as empty."""
        if shape == (len(index), 1):  # one canvas a prompt, none missing: as it stands, without a copy of the taps
            return self.map(lambda v: v.unsqueeze(1))
        blank = Reading.empty((*shape, self.rows.shape[-1]), self.rows.device)
        where = index.unbind(-1)

        def spread(value: Tensor) -> Tensor:
            return value.new_zeros(*shape, *value.shape[1:]).index_put(where, value)

        dense = {n: getattr(blank, n).index_put(where, getattr(self, n)) for n in _dense_names()}
        draws = None if self.draws is None else self.draws.map(spread)
        return Reading(**dense, **self._asked(spread), taps=tuple(t.map(spread) for t in self.taps), draws=draws)

    def at(self, choice: Int[Tensor, " B"]) -> Reading:
        """The reading of one canvas per prompt, from a [B, K] grid."""
        if self.rows.shape[1] == 1:
            return self.map(lambda v: v[:, 0])
        place = torch.arange(choice.shape[0], device=choice.device) * self.rows.shape[1] + choice
        return self.map(lambda v: v.flatten(0, 1).index_select(0, place))

    def map(self, function: Callable[[Tensor], Tensor]) -> Reading:
        """The same function on every tensor."""
        dense: dict[str, Any] = {n: function(getattr(self, n)) for n in _dense_names()}
        taps = tuple(t.map(function) for t in self.taps)
        draws = None if self.draws is None else self.draws.map(function)
        return replace(self, **dense, **self._asked(function), taps=taps, draws=draws)

    def _asked(self, function: Callable[[Tensor], Tensor]) -> dict[str, Any]:
        """The function on what only some policies ask for."""
        return {n: None if v is None else function(v) for n, v in ((n, getattr(self, n)) for n in ASKED)}

    def first(self) -> Reading:
        """Each position as the first canvas of a [B, K] grid reads it that does; taps of canvas 0."""
        first_row = self.rows.long().argmax(1, keepdim=True)  # [B, 1, L]

        def pick(value: Tensor) -> Tensor:
            index = (
                first_row
                if value.ndim == first_row.ndim
                else first_row.unsqueeze(-1).expand(-1, -1, -1, value.shape[-1])
            )
            return value.gather(1, index).squeeze(1)

        dense: dict[str, Any] = {n: pick(getattr(self, n)) for n in _dense_names()}
        taps = tuple(t.map(lambda v: v[:, 0]) for t in self.taps)
        return replace(self, **dense, taps=taps, draws=None if self.draws is None else self.draws.map(pick))


_DENSE = tuple(f.name for f in fields(Reading) if f.name not in ("taps", "draws", *ASKED))


def _dense_names() -> tuple[str, ...]:
    return _DENSE  # not found anew in each call: a compiler cannot follow that


def reading_of_figures(
    rows: Bool[Tensor, "... L"], floats: Float[Tensor, "... L F"], ints: Int[Tensor, "... L G"]
) -> Reading:
    """The reading at temperature 0 from the figures of `models.engine.figures`, which may stand anywhere."""
    here = rows.unsqueeze(-1)
    known = floats.masked_fill(~here, 0.0)
    confidence, log_risk, entropy, log_normaliser = known[..., :4].unbind(-1)
    return Reading(
        rows=rows,
        token=ints[..., 0].masked_fill(~rows, -1),
        confidence=confidence,
        log_risk=log_risk,
        entropy=entropy,
        top_log_probs=known[..., 4:],
        top_tokens=ints[..., 1:].masked_fill(~here, 0),
        log_normaliser=log_normaliser,
        noise=floats.new_zeros(1).expand(rows.shape),
    )


def read(
    prediction: Prediction,
    sampling: Sampling,
    generator: torch.Generator | Chances | None = None,
    standing: Int[Tensor, "... L"] | None = None,
) -> Reading:
    """Read candidates and confidences off a prediction, in float32 and without a copy of the softmax.

    c = exp(z_x̂ - logsumexp z) with z the logits at temperature 1, as in LLaDA and Fast-dLLM; taken as the sigmoid of
    z_x̂ - log sum exp of the other logits, since z_x̂ - logsumexp z rounds to steps of 2e-6 where c is near 1.

    Args:
        prediction: of one forward.
        sampling: how candidates are drawn.
        generator: of every draw.
        standing: a token that is the candidate whatever the prediction says; -1 where there is none.
    """
    rows, logits = prediction.rows, prediction.logits
    lines = max(1, LOGITS.get(logits.device.type, MANY_LOGITS) // logits.shape[-1])
    stands: Iterable[Tensor | None] = repeat(None) if standing is None else torch.split(standing[rows], lines)
    chances = chances_of(generator)
    asked = chances.at(rows)
    chunks = [
        _read_chunk(z.float(), sampling, asked.at(slice(n * lines, (n + 1) * lines)), stand)
        for n, (z, stand) in enumerate(zip(torch.split(logits, lines), stands, strict=False))
    ]
    shape = tuple(rows.shape)
    blank = Reading.empty(shape, rows.device)
    figures = {n: torch.cat([figures[n] for figures, _ in chunks]) for n in chunks[0][0]}
    dense: dict[str, Any] = {n: _unpack(values, rows, getattr(blank, n)) for n, values in figures.items()}
    noise = chances.noise(shape, rows.device) if sampling.noise else blank.noise
    reading = replace(blank, rows=rows, noise=noise, taps=prediction.taps, attention=prediction.attention, **dense)
    if not sampling.draws:
        return reading
    empty = Draws.empty(shape, sampling.draws, rows.device)
    drawn = {n.name: torch.cat([getattr(draws, n.name) for _, draws in chunks]) for n in fields(Draws)}
    return replace(reading, draws=Draws(**{n: _unpack(v, rows, getattr(empty, n)) for n, v in drawn.items()}))


def _unpack(values: Tensor, rows: Tensor, base: Tensor) -> Tensor:
    return base.masked_scatter(rows.unsqueeze(-1) if base.ndim > rows.ndim else rows, values)


def _read_chunk(
    z: Float[Tensor, "m V"], sampling: Sampling, chances: Chances, standing: Int[Tensor, " m"] | None
) -> tuple[dict[str, Tensor], Draws | None]:
    normaliser = z.logsumexp(-1, keepdim=True)
    allowed = z.clone() if sampling.forbidden else z
    if sampling.forbidden:
        allowed[:, list(sampling.forbidden)] = -torch.inf
    token = draw(allowed, sampling, chances)
    if standing is not None:
        token = torch.where(standing >= 0, standing, token)
    chosen = z.gather(-1, token[:, None])
    others = z.scatter(-1, token[:, None], -torch.inf)
    log_odds = (chosen - others.logsumexp(-1, keepdim=True)).squeeze(-1)
    confidence = log_odds.sigmoid()
    log_risk = logsigmoid(-log_odds).clamp(min=-100.0)
    entropy = torch.special.entr((others - normaliser).exp()).sum(-1) - confidence * logsigmoid(log_odds)
    if sampling.unconfident:
        never = torch.isin(token, torch.tensor(sampling.unconfident, device=token.device))
        confidence, log_risk = confidence.masked_fill(never, 0.0), log_risk.masked_fill(never, 0.0)
    top = allowed.topk(min(TOP, z.shape[-1]))
    missing = (0, TOP - top.indices.shape[-1])
    draws = draw_more(allowed - normaliser, sampling, chances) if sampling.draws else None
    figures = {
        "token": token,
        "confidence": confidence,
        "log_risk": log_risk,
        "entropy": entropy,
        "top_log_probs": torch.nn.functional.pad((top.values - normaliser).clamp(min=-100.0), missing, value=-100.0),
        "top_tokens": torch.nn.functional.pad(top.indices, missing),
        "log_normaliser": normaliser.squeeze(-1),
    }
    return figures, draws
