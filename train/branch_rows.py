"""Branches as they are written into a trace."""

from __future__ import annotations

from typing import Any

from decoding.branches import Branches
from train.harm import Verdicts


def rows_of(branches: Branches, verdicts: Verdicts, s: int, canvas: int) -> list[dict[str, Any]]:
    """Branch 0 and every branch there is; positions count from the first place of the canvas."""
    asked = branches.asked[s]
    rows = []
    for k in range(branches.position.shape[1]):
        if k and branches.position[s, k] < 0:
            continue
        rows.append(
            {
                "position": int(branches.position[s, k]) - canvas if k else -1,
                "kind": int(branches.kind[s, k]),
                "propensity": float(branches.propensity[s, k]),
                "log_confidence": float(branches.log_confidence[s, k]),
                "eq7": float(branches.eq7[s, k]),
                "token": branches.token[s, k][asked].tolist(),
                "log_risk": branches.log_risk[s, k][asked].tolist(),
                "harm": int(verdicts.harm[s, k]),
                "benefit": int(verdicts.benefit[s, k]),
                "answer": verdicts.answers[s, k][asked].tolist() if (verdicts.answers[s, k] >= 0).any() else [],
            }
        )
    return rows


def rows_of_bare(bare: Branches | None, s: int, canvas: int) -> list[dict[str, Any]]:
    """The same of the branches that commit their token alone, which nobody judges; the first of them commits nothing."""
    if bare is None:
        return []
    return rows_of(bare, Verdicts.unjudged(bare, bare.token[:, 0]), s, canvas)
