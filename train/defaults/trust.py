"""How much of what a head adds to the confidence is to be trusted: as much as states held out of the fit bear out."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from decoding.comparison.curves import Array, interval, resample
from models.heads.scoring_head import ScoringHead
from train.defaults.evidence import ENOUGH
from train.head.fit import Data
from train.head.metrics import RiskEstimates, collect_risk

SHARES = (0.25, 0.5, 0.75, 1.0)


def trust(head: ScoringHead, data: Data, *, seed: int) -> int:
    """Set the head's `trust` from the held-out states; returns how many positions these have labels for."""
    head.config = replace(head.config, trust=1.0)
    held = (
        collect_risk(head, [data.held[i] for i in range(len(data.held))], data.held_prompts)
        if data.held_prompts
        else None
    )
    head.config = replace(head.config, trust=0.0 if held is None else borne_out(held, seed=seed))
    return 0 if held is None else len(held.wrong)


def borne_out(held: RiskEstimates, *, seed: int) -> float:
    """The part w of the correction whose log loss is surest to be under that of the confidence, 0 where none is.

    logit r = (1 - w) logit(1 - c) + w logit r_head; w has the largest lower end of the 95 % interval of the loss it saves, prompts
    resampled. Under ENOUGH positions it is 0.
    """
    if len(held.wrong) < ENOUGH:
        return 0.0
    prompts, place = np.unique(held.prompt, return_inverse=True)
    weights = resample(len(prompts), seed=seed)
    mine, confidence = _logit(held.head), _logit(held.confidence)

    def least_saved(share: float) -> float:
        logit = share * mine + (1 - share) * confidence
        saved = _loss(confidence, held.wrong) - _loss(logit, held.wrong)
        found = interval(weights @ np.bincount(place, weights=saved, minlength=len(prompts)))
        return 0.0 if found is None else found.low

    lowest = {share: least_saved(share) for share in SHARES}
    best = max(SHARES, key=lambda share: lowest[share])
    return best if lowest[best] > 0 else 0.0


def _logit(p: Array) -> Array:
    p = p.clip(1e-9, 1 - 1e-6)
    logit: Array = np.log(p) - np.log1p(-p)
    return logit


def _loss(logit: Array, wrong: Array) -> Array:
    loss: Array = np.logaddexp(0.0, logit) - wrong * logit
    return loss
