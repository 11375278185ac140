"""What a cascade is worth on prompts it was not fitted on: what it explains, and how far its risks are to be trusted."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from decoding.comparison.curves import Array, interval, ratio_of_means, resample
from decoding.policy import Policy
from models.denoiser import Denoiser
from models.heads.cascade import Cascade
from train.cascade.examples import OPEN, CascadeExample, TaskPrompts, divergence, examples
from train.cascade.leading import Part
from train.defaults.evidence import ENOUGH
from train.head.metrics import RiskEstimates, risk_figures

LEVELS = 10.0 ** np.arange(-6.0, 0.0, 0.5)  # borders of the risks that are held against what they came to
FIRST, MANY = (
    16,
    4000,
)  # prompts of a task that say how far it is to be trusted, and positions under which all others do too
TOGETHER = 8  # prompts of a decode at least, where there are as many


def visited(
    denoiser: Denoiser, prompts: TaskPrompts, drivers: Sequence[Policy], parts: Sequence[float], *, batch_size: int
) -> Iterator[CascadeExample]:
    """The examples of all prompts, which are dealt to the drivers and parts; `prompt` is the place among all of them.

    Args:
        denoiser: the base with its head.
        prompts: of one task.
        drivers: lead, one prompt after the other to each.
        parts: shares of a round's commits that an example keeps, each in (0, 1].
        batch_size: prompts in one decode.
    """
    ways = ways_of(drivers, parts, len(prompts.texts))
    for number, policy in enumerate(ways):
        own = prompts.texts[number :: len(ways)]
        for low in range(0, len(own), batch_size):
            for one in examples(denoiser, prompts, own[low : low + batch_size], policy, denoiser.head.taps_ahead):
                yield replace(one, prompt=number + len(ways) * (low + one.prompt))


def ways_of(drivers: Sequence[Policy], parts: Sequence[float], count: int) -> list[Part]:
    """Parts of drivers for so many prompts, spread over all of them where a decode of each would be of a few prompts.

    Args:
        drivers: lead.
        parts: shares of a round's commits.
        count: of the prompts.
    """
    ways = [Part(policy, part) for part in parts for policy in drivers]
    wanted = min(len(ways), max(len(parts), len(drivers), count // TOGETHER))
    return [ways[i * len(ways) // wanted] for i in range(wanted)]


def owner(one: CascadeExample) -> Tensor:
    """The prompt of every position left."""
    return one.prompt.unsqueeze(-1).expand(one.left.shape)[one.left]


@torch.no_grad()
def evaluate(
    denoiser: Denoiser,
    prompts: TaskPrompts,
    drivers: Sequence[Policy],
    *,
    batch_size: int,
    parts: Sequence[float] = (1.0,),
    seed: int = 0,
) -> dict[str, Any]:
    """Mean KL of the next forward from the cascade, from the forward before it, and the share of it that the cascade explains.

    The prompts are dealt to the drivers. `explained` is that share with its interval, prompts resampled, and `open` the number
    of positions in which something was to be foretold. `changed` is how well the cascade tells the candidates that change
    (`position_figures`) on half of the prompts, against 1 - c; its skills compare both recalibrated on the other half.

    Args:
        denoiser: the base with its head.
        prompts: of one task.
        drivers: lead, one prompt after the other to each.
        batch_size: prompts in one decode.
        parts: shares of a round's commits that an example keeps, each in (0, 1].
        seed: of the resamples.
    """
    seen = visited(denoiser, prompts, drivers, parts, batch_size=batch_size)
    found = [(owner(one), *position_figures(one, denoiser.head.cascade)) for one in seen]
    if not any(len(columns[0]) for columns in found):
        return {"positions": 0}
    prompt, *columns = (torch.cat(column).double().cpu().numpy() for column in zip(*found, strict=True))
    kl, kl_without = columns[:2]
    ways = len(ways_of(drivers, parts, len(prompts.texts)))
    halves = [prompt // ways % 2 == half for half in (0, 1)]
    fitted_on, unseen = (RiskEstimates(prompt.astype(int), *columns[2:]).where(half) for half in halves)
    both = fitted_on.mixed and unseen.mixed
    explained = share_explained(prompt, kl, kl_without, seed=seed)
    return {
        "kl": float(kl.mean()),
        "kl_without": float(kl_without.mean()),
        "skill": 1 - float(kl.mean()) / max(float(kl_without.mean()), 1e-12),
        "explained": explained,
        "positions": len(prompt),
        "open": int((kl_without > OPEN).sum()),
        "prompts": len(np.unique(prompt)),
        **({"changed": risk_figures(fitted_on, unseen.recalibrated(fitted_on))} if both else {}),
    }


def share_explained(prompt: Array, kl: Array, kl_without: Array, *, seed: int) -> dict[str, float] | None:
    """1 - KL with the cascade / KL without it, with an interval that resamples prompts.

    Args:
        prompt: [N], of each position.
        kl, kl_without: [N], nats with the cascade and without.
        seed: of the resamples.
    """
    owners, place = np.unique(prompt, return_inverse=True)
    with_it, without = (
        np.bincount(place, weights=column, minlength=len(owners)).astype(np.float64) for column in (kl, kl_without)
    )
    found = interval(1 - ratio_of_means(resample(len(owners), seed=seed), with_it, without))
    return None if found is None else asdict(found)


def position_figures(example: CascadeExample, cascade: Cascade) -> tuple[Tensor, ...]:
    """Of every position left: both divergences, whether its candidate changes, and the chance of that with and without the cascade.

    A candidate changes where the next forward holds another one, or all others together, for likelier.
    """
    said = example.foretold(cascade)
    return (
        divergence(example.target, said),
        divergence(example.target, example.unmoved()),
        example.target.argmax(-1) > 0,
        said[:, 1:].logsumexp(-1).exp(),
        example.reading.log_risk[example.left].exp(),
    )


@torch.no_grad()
def trust(
    denoiser: Denoiser,
    tasks: Sequence[TaskPrompts],
    drivers: Sequence[Policy],
    parts: Sequence[float],
    *,
    batch_size: int,
) -> int:
    """Let the head's cascade say no smaller risks than held-out prompts bear out (`borne_out`); returns the positions they had.

    The FIRST prompts of a task are enough where they have MANY positions.

    Args:
        denoiser: the base with its head.
        tasks: prompts held out.
        drivers: lead, one prompt after the other to each.
        parts: shares of a round's commits that an example keeps, each in (0, 1].
        batch_size: prompts in one decode.
    """
    cascade = denoiser.head.cascade.trusting((), ())
    found = []
    for prompts in tasks:
        mine = np.zeros((2, 0))
        for texts in (prompts.texts[:FIRST], prompts.texts[FIRST:]):
            if texts and mine.shape[1] < MANY:
                seen = visited(denoiser, replace(prompts, texts=texts), drivers, parts, batch_size=batch_size)
                more = [risk_of(one, cascade).double().cpu().numpy() for one in seen]
                mine = np.concatenate([mine, *more], 1)
        found.append(mine)
    knots = [borne_out(*columns) for columns in found]
    grid = sorted({x for foretold, _ in knots for x in foretold})
    worst = [max(float(np.interp(np.log(x), np.log(f), np.log(s))) for f, s in knots) for x in grid]
    cascade.trusting(grid, np.maximum.accumulate(np.exp(worst)).clip(max=1.0).tolist())
    return int(min(columns.shape[1] for columns in found))


def risk_of(one: CascadeExample, cascade: Cascade) -> Tensor:
    """Of every position left the risk that is foretold, and that of the same token by the next forward: [2, M]."""
    said = one.foretold(cascade)
    best = said[:, :-1].argmax(-1, keepdim=True)
    return torch.stack([1 - values.gather(-1, best).squeeze(-1).exp() for values in (said, one.target)])


def borne_out(foretold: Array, came: Array) -> tuple[list[float], list[float]]:
    """Risks, and what those foretold near them came to, as if one position more had come out wrong.

    s = (sum of what they came to + 1) / (n + 1) within bins of ENOUGH positions at least. Where s would fall, the bins are one
    (pool adjacent violators): the fewer positions, the less is trusted, and nothing where there are too few in all.
    """
    if len(foretold) < ENOUGH:
        return [1.0], [1.0]
    place = np.searchsorted(LEVELS, foretold)
    bins: list[Array] = []  # positions, sum of what they came to, sum of logarithms of what was foretold
    pending = np.zeros(3)
    for level in range(len(LEVELS) + 1):
        here = place == level
        pending += np.array([here.sum(), came[here].sum(), np.log(foretold[here].clip(1e-9)).sum()])
        if pending[0] >= ENOUGH:
            bins.append(pending)
            pending = np.zeros(3)
        _pool(bins)
    if pending[0]:
        bins[-1:] = [bins[-1] + pending]
        _pool(bins)
    risks = [float(np.exp(logs / count)) for count, _, logs in bins]
    return risks, [min(1.0, _seen(one)) for one in bins]


def _pool(bins: list[Array]) -> None:
    """Make one of the last bins as long as what was seen falls from one to the next."""
    while len(bins) > 1 and _seen(bins[-2]) >= _seen(bins[-1]):
        bins[-2:] = [bins[-2] + bins[-1]]


def _seen(one: Array) -> float:
    count, total, _ = one
    return float((total + 1) / (count + 1))
