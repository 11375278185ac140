"""How well a head tells which candidates change each other, on unseen prompts, against the confidence of the one changed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from decoding.comparison.curves import Array, interval, ratio_of_means, resample
from models.heads.scoring_head import ScoringHead
from train.head.metrics import Recalibration, auroc
from train.head.module import Prepared, conflict_labels, of_branches


@dataclass(frozen=True)
class ConflictEstimates:
    """Every labelled pair of a data set: its prompt and state, the label, and both estimates of its probability."""

    prompt: NDArray[np.int64]
    state: NDArray[np.int64]
    changed: Array
    head: Array
    confidence: Array


@torch.no_grad()
def collect_conflicts(head: ScoringHead, prepared: Sequence[Prepared], prompt_of: Sequence[int]) -> ConflictEstimates:
    """Collect labels and estimates of all known pairs; the estimate without a head is 1 - c of the position changed."""
    head.eval()
    ids, parts = torch.tensor(list(prompt_of)), []
    for one in prepared:
        changed, known = conflict_labels(one.batch, one.reading)
        conflicts = one.scored_by(head).conflicts
        if conflicts is None:
            raise ValueError("a head whose conflicts are measured must have a conflict output, got one without")
        state = one.batch.state_index[:, None, None].expand(known.shape)[known].cpu()
        risk = one.reading.log_risk.exp().unsqueeze(1).expand(known.shape)
        columns = (changed[known], of_branches(conflicts.probability, one.batch)[known], risk[known])
        parts.append((ids[state], state, *(column.cpu() for column in columns)))
    table: list[Tensor] = [torch.cat(column) for column in zip(*parts, strict=True)]
    numbers = (column.double().numpy() for column in table[2:])
    return ConflictEstimates(table[0].numpy(), table[1].numpy(), *numbers)


def conflict_figures(fitted_on: ConflictEstimates, unseen: ConflictEstimates, *, seed: int = 0) -> dict[str, Any]:
    """Log-loss skill over isotonically recalibrated 1 - c_j, and the mean AUROC within a state; intervals resample prompts.

    skill = 1 - loss(head) / loss(recalibrated 1 - c_j). States in which all pairs agree have no AUROC.
    """
    changed = unseen.changed
    if not 0 < changed.sum() < len(changed) or not len(fitted_on.changed):
        return {"pairs": len(changed)}
    base = Recalibration.fit(fitted_on.confidence, fitted_on.changed)(unseen.confidence)
    prompts, prompt_index = np.unique(unseen.prompt, return_inverse=True)
    weights = resample(len(prompts), seed=seed)

    def loss(probability: Array) -> Array:
        p = probability.clip(1e-6, 1 - 1e-6)
        return _summed(-(changed * np.log(p) + (1 - changed) * np.log1p(-p)), prompt_index, len(prompts))

    within = _within_states(unseen)
    owner = np.searchsorted(prompts, within[:, 0])
    count = _summed(np.ones(len(within)), owner, len(prompts))

    def mean(each: Array) -> dict[str, float] | None:
        mean_interval = interval(ratio_of_means(weights, _summed(each, owner, len(prompts)), count))
        return None if mean_interval is None else asdict(mean_interval)

    skill = interval(1 - ratio_of_means(weights, loss(unseen.head), loss(base)))
    return {
        "pairs": len(changed),
        "share_changed": float(changed.mean()),
        "log_loss_skill": None if skill is None else asdict(skill),
        "states": len(within),
        "auroc": mean(within[:, 1]),
        "auroc_confidence": mean(within[:, 2]),
    }


def _within_states(estimates: ConflictEstimates) -> Array:
    """Prompt and both AUROCs of every state with pairs of either kind."""
    lines = []
    for state in np.unique(estimates.state):
        inside = estimates.state == state
        changed = estimates.changed[inside]
        if 0 < changed.sum() < len(changed):
            both = (auroc(estimate[inside], changed) for estimate in (estimates.head, estimates.confidence))
            lines.append((estimates.prompt[inside][0], *both))
    return np.asarray(lines, dtype=np.float64).reshape(-1, 3)


def _summed(each: Array, place: NDArray[np.intp], count: int) -> Array:
    return np.bincount(place, weights=each, minlength=count).astype(np.float64)
