"""How good a head is on unseen prompts: within-state choice, and risk against recalibrated confidence; with intervals."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor
from torchmetrics.classification import BinaryAUROC
from torchmetrics.functional import spearman_corrcoef
from torchmetrics.retrieval import RetrievalNormalizedDCG

from decoding.comparison.curves import Array, Estimate, interval, ratio_of_means, resample
from models.heads.scoring_head import ScoringHead
from train.defaults.evidence import ENOUGH
from train.head.module import Prepared, PreparedBatches

AUROCS = 200  # resamples of an AUROC
BINS = 200  # quantile bins of the isotonic recalibration


@dataclass(frozen=True)
class Recalibration:
    """Isotonic map from a risk in (0, 1) to the share of wrong tokens, fitted on quantile bins."""

    edges: NDArray[np.float64]
    value: NDArray[np.float64]

    @staticmethod
    def fit(risk: Array, wrong: Array) -> Recalibration:
        """Least squares over the positions, never falling, constant on at most BINS quantile bins."""
        edges = np.unique(np.quantile(risk, np.linspace(0, 1, BINS + 1), method="lower"))[1:]  # no bin is empty
        bins = np.searchsorted(edges, risk, side="right")
        total, count = (np.bincount(bins, weights=w).astype(np.float64) for w in (wrong, np.ones_like(wrong)))
        return Recalibration(edges, _rising(total, count).clip(1e-5, 1 - 1e-5))

    def __call__(self, risk: Array) -> Array:
        out: Array = self.value[np.searchsorted(self.edges, risk, side="right")]
        return out


def _rising(total: Array, count: Array) -> Array:
    """Least-squares fit that never falls: max_{j<=i} min_{k>=i} sum_{j..k} total / sum_{j..k} count."""
    sums, counts = (np.concatenate([[0.0], column.cumsum()]) for column in (total, count))
    start, stop = np.arange(len(total))[:, None], np.arange(1, len(total) + 1)[None]
    size = np.where(start < stop, counts[None, 1:] - counts[:-1, None], 1.0)
    mean = np.where(start < stop, (sums[None, 1:] - sums[:-1, None]) / size, np.inf)
    suffix = np.minimum.accumulate(mean[:, ::-1], axis=1)[:, ::-1]
    rising: Array = np.where(start < stop, suffix, -np.inf).max(axis=0)
    return rising


@dataclass(frozen=True)
class RiskEstimates:
    """Every labelled position of a data set, with the head's and the model's own estimate of its risk."""

    prompt: NDArray[np.int64]
    wrong: Array
    head: Array
    confidence: Array

    def where(self, some: NDArray[np.bool_]) -> RiskEstimates:
        """Some of the positions."""
        return RiskEstimates(self.prompt[some], self.wrong[some], self.head[some], self.confidence[some])

    def recalibrated(self, fitted_on: RiskEstimates) -> RiskEstimates:
        """The head's estimates through the isotonic map that fits other prompts."""
        return replace(self, head=Recalibration.fit(fitted_on.head, fitted_on.wrong)(self.head))

    @property
    def mixed(self) -> bool:
        """Whether both labels occur."""
        return bool(0 < self.wrong.sum() < len(self.wrong))


@torch.no_grad()
def collect_risk(
    head: ScoringHead,
    prepared: PreparedBatches | Sequence[Prepared],
    prompt_of: Sequence[int],
    estimate: Callable[[Prepared], Float[Tensor, "S L"]] | None = None,
) -> RiskEstimates:
    """Collect labels and estimates of all known positions; the head's own risks unless another `estimate` is given.

    Args:
        head: the head.
        prepared: batches behind the trunk.
        prompt_of: the prompt of each state.
        estimate: risks [S, L] of a batch, in place of the head's.
    """
    head.eval()
    parts: list[tuple[Tensor, ...]] = []
    ids = torch.tensor(list(prompt_of))
    for one in (prepared[i] for i in range(len(prepared))):
        known = one.known
        risk = one.scored_by(head).risk if estimate is None else estimate(one)
        prompt = ids[one.batch.state_index.cpu()][:, None].expand(known.shape)[known.cpu()]
        parts.append((prompt, one.wrong[known].cpu(), risk[known].cpu(), one.reading.log_risk.exp()[known].cpu()))
    columns = [np.asarray(torch.cat(column)) for column in zip(*parts, strict=True)]
    return RiskEstimates(columns[0], *(c.astype(np.float64) for c in columns[1:]))


def risk_figures(fitted_on: RiskEstimates, unseen: RiskEstimates, *, seed: int = 0) -> dict[str, Any]:
    """AUROC, Brier and log-loss skill of the head over isotonically recalibrated confidence, on unseen prompts.

    skill = 1 - loss(head) / loss(recalibrated confidence); intervals resample prompts. Without a label to fit on, or with one kind
    of label among the unseen, there are no figures.
    """
    if not unseen.mixed or not len(fitted_on.wrong):
        return {"positions": 0}
    base = Recalibration.fit(fitted_on.confidence, fitted_on.wrong)(unseen.confidence)
    risk = unseen.head.clip(1e-6, 1 - 1e-6)
    prompts, owner = np.unique(unseen.prompt, return_inverse=True)
    weights = resample(len(prompts), seed=seed)

    def summed(each: Array) -> Array:
        return np.bincount(owner, weights=each, minlength=len(prompts)).astype(np.float64)

    def skill(ours: Array, theirs: Array) -> Estimate | None:
        return interval(1 - ratio_of_means(weights, summed(ours), summed(theirs)))

    wrong = unseen.wrong
    return {
        "positions": len(wrong),
        "share_wrong": float(wrong.mean()),
        "enough": len(wrong) >= ENOUGH,
        "auroc": auroc(risk, wrong),
        "calibration_error": calibration_error(1 - unseen.confidence, 1 - wrong),
        "auroc_interval": _plain(interval(weighted_auroc(risk, wrong, owner, weights[: 1 + AUROCS]))),
        "auroc_confidence": auroc(unseen.confidence, wrong),
        "brier_skill": _plain(skill((risk - wrong) ** 2, (base - wrong) ** 2)),
        "log_loss_skill": _plain(skill(_log_loss(risk, wrong), _log_loss(base, wrong))),
    }


def calibration_error(confidence: Array, right: Array, *, bins: int = 15) -> float:
    """Expected calibration error: sum_b n_b / n |share right in b - mean confidence in b| (Guo et al. 2017, Eq. 3).

    Args:
        confidence: in [0, 1], of each position.
        right: 1 where its token is.
        bins: of equal width.
    """
    place = np.minimum((confidence * bins).astype(int), bins - 1)
    apart = np.bincount(place, weights=right - confidence, minlength=bins)
    return float(np.abs(apart).sum() / len(right))


def auroc(score: Array, wrong: Array) -> float:
    """Probability that a wrong position is rated riskier than a right one."""
    metric = BinaryAUROC(sync_on_compute=False)  # the first of several processes measures alone
    metric.update(torch.from_numpy(score), torch.from_numpy(wrong).long())
    return float(metric.compute())


def weighted_auroc(score: Array, wrong: Array, place: NDArray[np.intp], weights: Array) -> Array:
    """The same for every line of weights over the prompts, `place` being that of each position's; ties count half.

    Args:
        score, wrong: [N], of each position.
        place: [N], the prompt of each.
        weights: [R, prompts].
    """
    levels, level = np.unique(score, return_inverse=True)
    found = []
    for line in weights:
        bad, good = (
            np.bincount(level, weights=line[place] * kind, minlength=len(levels)) for kind in (wrong, 1 - wrong)
        )
        below = good.cumsum() - good / 2
        found.append((bad * below).sum() / max(bad.sum() * good.sum(), 1e-300) if bad.sum() * good.sum() else np.nan)
    return np.asarray(found, dtype=np.float64)


def _log_loss(p: Array, wrong: Array) -> Array:
    return -(wrong * np.log(p) + (1 - wrong) * np.log1p(-p))


@dataclass(frozen=True)
class Choices:
    """One line per state with branches: the gain of the branch each chooser takes."""

    prompt: NDArray[np.int64]
    oracle: Array
    head: Array
    beam: Array
    anchor: Array
    uniform: Array
    same_as_beam: Array
    spearman: Array
    ndcg: float


@torch.no_grad()
def collect_choices(head: ScoringHead, prepared: Sequence[Prepared], prompt_of: Sequence[int]) -> Choices:
    """Let the head, the beam, the most confident position and chance choose in every state whose branches are labelled."""
    head.eval()
    ndcg = RetrievalNormalizedDCG(
        top_k=4, empty_target_action="skip", sync_on_compute=False
    )  # nothing to rank where all are equal
    lines: list[list[float]] = []
    for one in prepared:
        scores = one.scored_by(head)
        batch = one.batch
        of_branch = scores.gain.gather(1, batch.position.clamp(min=0))
        for s in (batch.valid.sum(1) > 1).nonzero().squeeze(1).tolist():
            valid = batch.valid[s]
            gain, predicted = batch.gain[s][valid].cpu(), of_branch[s][valid].cpu()
            beam, eq7 = batch.beam[s][valid].cpu(), batch.eq7[s][valid].cpu()
            confidence = batch.log_confidence[s][valid].cpu()
            state = int(batch.state_index[s])
            ndcg.update(predicted, gain - gain.min(), indexes=torch.full((len(gain),), state))
            ranked = eq7.masked_fill(~beam, -torch.inf)
            by_beam = int(ranked.argmax()) if torch.isfinite(ranked).any() else int(confidence.argmax())
            among = predicted.masked_fill(~beam, -torch.inf)
            lines.append(
                [
                    prompt_of[state],
                    float(gain.max()),
                    float(gain[predicted.argmax()]),
                    float(gain[by_beam]),
                    float(gain[confidence.argmax()]),
                    float(gain.mean()),
                    float(among.argmax() == by_beam) if beam.any() else np.nan,
                    float(spearman_corrcoef(predicted, gain)) if gain.std() > 0 and predicted.std() > 0 else np.nan,
                ]
            )
    table = np.asarray(lines, dtype=float).reshape(-1, 8)
    names = ("oracle", "head", "beam", "anchor", "uniform", "same_as_beam", "spearman")
    columns = {name: table[:, 1 + i] for i, name in enumerate(names)}
    return Choices(table[:, 0].astype(np.int64), ndcg=float(ndcg.compute()) if lines else float("nan"), **columns)


def choice_figures(choices: Choices, *, seed: int = 0) -> dict[str, Any]:
    """Regret in positions against the oracle over the labelled branches, agreement, NDCG@4 and within-state Spearman."""
    prompts, owner = np.unique(choices.prompt, return_inverse=True)
    if not len(prompts):
        return {"states": 0}
    weights = resample(len(prompts), seed=seed)

    def mean(each: Array) -> dict[str, float] | None:
        seen = np.isfinite(each)
        value = np.bincount(owner, weights=np.where(seen, each, 0.0), minlength=len(prompts)).astype(np.float64)
        count = np.bincount(owner, weights=seen.astype(float), minlength=len(prompts)).astype(np.float64)
        return _plain(interval(ratio_of_means(weights, value, count)))

    return {
        "states": len(choices.oracle),
        "oracle_gain": mean(choices.oracle),
        "regret": mean(choices.oracle - choices.head),
        "regret_beam": mean(choices.oracle - choices.beam),
        "regret_confidence": mean(choices.oracle - choices.anchor),
        "regret_uniform": mean(choices.oracle - choices.uniform),
        "top1_oracle": mean((choices.head >= choices.oracle).astype(float)),
        "top1_beam": mean(choices.same_as_beam),
        "spearman": mean(choices.spearman),
        "ndcg4": choices.ndcg,
    }


def _plain(estimate: Estimate | None) -> dict[str, float] | None:
    if estimate is None:
        return None
    return {"estimate": estimate.estimate, "low": estimate.low, "high": estimate.high}
