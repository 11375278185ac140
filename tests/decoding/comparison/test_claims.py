"""What a comparison may say: rivals are chosen on dev, claims survive Holm's adjustment and hold on test, draws are apart."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import decoding.comparison.runs
from decoding.comparison.arms import Arm, Cell
from decoding.comparison.curves import AtReference, Curve, holm, p_value
from decoding.comparison.problems import Problems
from decoding.comparison.records.ledger import COLUMNS, Ledger
from decoding.comparison.results import Measured, best_headless
from decoding.comparison.runner import Runner
from decoding.comparison.runs import Encoded, run_cells
from decoding.comparison.verdicts import claims, headroom
from decoding.policies.quota import Sequential
from models.toys.toy import GroupDenoiser

RESAMPLES = 2000


def curve(rounds: float) -> Curve:
    one = np.full((RESAMPLES + 1, 1), 1.0)
    return Curve(accuracy=one, rounds=rounds * one, forwards=rounds * one, tokens=8 * one)


def measured(
    name: str, kind: str = "headless", *, dev: float, test: float, holds: bool | None = True, above: int = 0
) -> Measured:
    """An arm with its rounds on both splits; `above` of the resamples on test lie far above it."""
    arm = Arm(name, kind, "learned" if kind == "learned" else "threshold")
    rounds = np.full(RESAMPLES + 1, float(test))
    rounds[1 : 1 + above] = 100.0
    at = AtReference(0, rounds, np.full(RESAMPLES + 1, 0.0), holds, 0.0)
    return Measured(arm, (Cell(name, arm.policy, None, {}),), curve(dev), curve(test), at)


def test_the_best_rival_is_chosen_on_dev() -> None:
    arms = [measured("on-dev", dev=2.0, test=5.0), measured("on-test", dev=3.0, test=1.0)]
    chosen = best_headless(arms)
    assert chosen is not None
    assert chosen.arm.name == "on-dev"
    assert (
        best_headless([measured("sequential", dev=1.0, test=1.0), measured("learned", "learned", dev=1, test=1)])
        is None
    )


def findings(*arms: Measured) -> dict[str, str]:
    return {finding: sentence for _, finding, sentence in claims(arms)}


def test_a_claim_is_adjusted_by_holm_for_all_rivals_of_its_arm() -> None:
    ours = measured("ours", "learned", dev=1.0, test=1.0)
    clear = [measured(f"rival-{n}", dev=2.0, test=2.0) for n in range(4)]
    p = p_value(ours.at.rounds / measured("near", dev=2, test=2).at.rounds, null=1.0)
    assert p < 0.01
    assert findings(ours, *clear).keys() == {"fewer rounds"}
    close = measured("ours", "learned", dev=1.0, test=1.0, above=RESAMPLES // 60)  # p = .034 against each
    alone, five = findings(close, clear[0]), findings(close, *clear, measured("rival-5", dev=2.0, test=2.0))
    assert alone.keys() == {"fewer rounds"}
    assert five.keys() == {"no difference"}
    assert holm([0.034] * 5) == pytest.approx([0.17] * 5)


def test_an_arm_that_does_not_hold_on_test_claims_nothing_and_is_no_rival() -> None:
    ours, rival = measured("ours", "learned", dev=1.0, test=1.0), measured("rival", dev=2.0, test=2.0)
    fallen = measured("ours", "learned", dev=1.0, test=1.0, holds=False)
    assert findings(fallen, rival) == {}
    assert findings(ours, measured("rival", dev=2.0, test=2.0, holds=False)) == {}
    assert findings(ours, rival).keys() == {"fewer rounds"}


def test_headroom_is_told_where_the_ceiling_is_near() -> None:
    ceiling = measured("practical-ceiling", "ceiling", dev=1.0, test=1.0)
    assert [finding for _, finding, _ in headroom([ceiling, measured("near", dev=1.05, test=1.05)])] == ["no headroom"]
    assert list(headroom([ceiling, measured("far", dev=2.0, test=2.0)])) == []


def test_dev_and_test_are_resampled_apart_and_seeds_too() -> None:
    problems = Problems("x", ("a", "b", "c"), ("d", "e", "f"), 8, 8)

    def weights(split: str, seed: int) -> np.ndarray:
        runner = Runner(GroupDenoiser(1, 8), problems, lambda *_: True, Ledger(None, {}), {}, {}, 1, seed, False)
        return runner.weights(split)  # type: ignore[arg-type]

    drawn = [weights(split, seed) for split in ("dev", "test") for seed in (0, 1)]
    for n, one in enumerate(drawn):
        assert all(not np.array_equal(one, other) for other in drawn[n + 1 :])
    assert np.array_equal(weights("dev", 0), weights("dev", 0))


def test_every_chunk_draws_from_a_seed_of_its_own(monkeypatch, tmp_path) -> None:
    seeds: list[int] = []
    whole = decoding.comparison.runs.generate

    def decoded(denoiser, tokens, policy, *, generator, **how):
        seeds.append(generator.initial_seed())
        made = whole(denoiser, tokens, policy, generator=generator, **how)
        return replace(made, tokenizer=SimpleNamespace(decode=lambda ids, **_: str(ids)))

    encoded = Encoded(torch.zeros(4, 1, dtype=torch.long), None, torch.zeros(4, 8, dtype=torch.long))
    monkeypatch.setattr(decoding.comparison.runs, "generate", decoded)
    monkeypatch.setattr(decoding.comparison.runs.Encoded, "of", staticmethod(lambda *_: encoded))
    monkeypatch.setattr(
        decoding.comparison.runs, "measure", lambda made, right, reference: np.ones((len(right), len(COLUMNS)))
    )
    problems = Problems("x", ("a",), ("b", "c", "d", "e"), 8, 8)
    toy = GroupDenoiser(1, 8)
    cells = [(Cell(name, "random", None, {"n": name}), Sequential(order="random"), toy) for name in ("one", "two")]
    for seed in (0, 1):
        how = {"batch_size": 2, "seed": seed, "progress": False}
        run_cells(Ledger(None, {}), problems, "test", cells, lambda *_: True, **how)  # type: ignore[arg-type]
    first, second = seeds[:4], seeds[4:]
    assert len(set(first)) == len(set(second)) == 2  # every arm the same draws on a chunk, another chunk other draws
    assert not set(first) & set(second)
