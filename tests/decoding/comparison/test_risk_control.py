"""Risk control: bounds against scipy and numbers worked by hand, the order of tests, and the promise itself by replay."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import binom, binomtest

from decoding.comparison.arms import Arm, dial_values, find_dial
from decoding.comparison.risk_control import (
    BETS,
    LOSSES,
    Outcomes,
    RiskControl,
    TestedDial,
    betting_bound,
    choose,
    choose_calibrated,
    clopper_pearson,
    fixed_sequence,
)
from decoding.names import POLICIES

RESAMPLES = 200


@pytest.mark.parametrize(("events", "trials"), [(0, 10), (1, 10), (3, 40), (12, 2000), (39, 40)])
def test_the_binomial_bound_is_the_exact_one(events, trials):
    bound = clopper_pearson(events, trials, 0.95)
    assert binom.cdf(events, trials, bound) == pytest.approx(0.05, rel=1e-6)
    two_sided = binomtest(events, trials).proportion_ci(0.9, method="exact")
    assert bound == pytest.approx(two_sided.high, rel=1e-9)


def test_binomial_bounds_worked_by_hand():
    assert clopper_pearson(0, 299, 0.95) == pytest.approx(1 - 0.05 ** (1 / 299), rel=1e-9)
    assert clopper_pearson(0, 299, 0.95) <= 0.01 < clopper_pearson(0, 298, 0.95)
    assert clopper_pearson(1, 2, 0.75) == pytest.approx(math.sqrt(0.75), rel=1e-9)  # 1 - p^2 = 0.25
    assert clopper_pearson(7, 7, 0.95) == 1.0


def capital(differences, mean: float) -> float:
    """The product of the definition, one prompt at a time."""
    return float(np.mean([math.prod(1 + bet * (mean - x) for x in differences) for bet in BETS]))


@pytest.mark.parametrize(("lost", "same", "gained"), [(0, 400, 0), (2, 500, 0), (5, 300, 9), (30, 20, 1)])
def test_the_betting_bound_is_where_the_capital_reaches_one_over_the_error(lost, same, gained):
    differences = np.repeat([1.0, 0.0, -1.0], [lost, same, gained])
    bound = betting_bound(differences, 0.95)
    assert 0 < bound < 1
    assert capital(differences, bound) == pytest.approx(20, rel=1e-6)
    assert betting_bound(differences[::-1].copy(), 0.95) == bound


def test_betting_bounds_at_the_ends():
    assert betting_bound(np.ones(50), 0.95) == 1.0
    assert betting_bound(np.zeros(3), 0.95) == 1.0  # too few to say anything: (1 + 1)^3 < 20
    assert betting_bound(-np.ones(50), 0.95) == 0.0


def test_the_capital_is_a_fair_game_at_the_true_mean():
    chances = {1.0: 0.2, 0.0: 0.7, -1.0: 0.1}
    expected = sum(
        p * q * capital([x, y], 0.1) for x, p in chances.items() for y, q in chances.items()
    )  # E[K] = 1 where the mean is just what is tested
    assert expected == pytest.approx(1.0, rel=1e-12)


def test_too_few_prompts_are_counted():
    assert RiskControl("flip", 0.01, 0.95).prompts_needed() == 299
    assert RiskControl("flip", 0.1, 0.9).prompts_needed() == 22  # 0.9^22 < 0.1 < 0.9^21
    assert RiskControl("flip", 0.01, 0.95).prompts_needed(0.02) is None
    for loss in LOSSES:
        control = RiskControl(loss, 0.02, 0.95)
        needed = control.prompts_needed()
        assert control.bound(np.zeros(needed)) <= 0.02 < control.bound(np.zeros(needed - 1))


def outcomes(right, answer=None, rounds=4.0) -> Outcomes:
    right = np.array(right, dtype=float)
    return Outcomes(right, np.array(answer if answer is not None else right, float), np.full(len(right), rounds))


def test_losses_are_what_they_are_called():
    careful, arm = outcomes([1, 1, 0, 0]), outcomes([1, 0, 1, 0])
    assert RiskControl("flip").losses(careful, arm, checked=True).tolist() == [0, 1, 0, 0]
    assert RiskControl("difference").losses(careful, arm, checked=True).tolist() == [0, 1, -1, 0]
    careful, arm = outcomes([0, 0, 0], [7, 8, 9]), outcomes([0, 0, 0], [7, 8, 1])
    assert RiskControl("flip").losses(careful, arm, checked=False).tolist() == [0, 0, 1]
    with pytest.raises(ValueError, match=r"^loss must be flip where no checker judges the answers, got 'difference'$"):
        RiskControl("difference").losses(careful, arm, checked=False)


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        (("flip", 0.0, 0.9), r"max_loss must lie in \(0, 1\), got 0.0"),
        (("flip", float("nan"), 0.9), r"max_loss must lie in \(0, 1\), got nan"),
        (("flip", 0.1, 1.0), r"confidence must lie in \(0, 1\), got 1.0"),
    ],
)
def test_a_promise_out_of_range_is_refused(values, sentence):
    with pytest.raises(ValueError, match=f"^{sentence}$"):
        RiskControl(*values)


def dial(value: float, rounds: float, holds: bool) -> TestedDial:
    return TestedDial(value, 0.0, 0.0, rounds, None, holds)


def test_testing_stops_at_the_first_failure_and_the_fewest_rounds_are_chosen():
    measured = {0.9: dial(0.9, 5.0, True), 0.8: dial(0.8, 6.0, True), 0.7: dial(0.7, 2.0, False)}
    asked = []

    def measure(value):
        asked.append(value)
        return measured[value]

    tested = fixed_sequence([0.9, 0.8, 0.7, 0.6], measure)  # 0.6 is not there to be measured
    assert asked == [0.9, 0.8, 0.7]
    assert tested[-1].value == 0.7
    assert choose(tested).value == 0.9  # fewer rounds than the bolder 0.8
    assert choose(fixed_sequence([0.7, 0.9], measure)) is None


class Stored:
    """A table of outcomes of 20,000 prompts: a careful decode and eight settings of a dial, bold ones beyond the promise."""

    RISKS = (0.001, 0.003, 0.005, 0.0085, 0.0105, 0.012, 0.02, 0.05)
    ROUNDS = (20.0, 16.0, 14.0, 13.0, 12.0, 11.0, 10.0, 8.0)

    def __init__(self, gain: float) -> None:
        prompts = 20_000
        generator = np.random.default_rng(11)
        hard, luck = generator.permuted(np.arange(prompts)) / prompts, generator.permuted(np.arange(prompts)) / prompts
        self.difference = np.stack([(hard < risk).astype(float) - (luck < gain * risk) for risk in self.RISKS])
        self.careful = np.maximum(self.difference.max(0), generator.random(prompts) < 0.7)
        self.careful *= self.difference.min(0) >= 0
        self.right = self.careful - self.difference * (np.abs(self.difference) == 1)
        self.right = np.clip(self.right, 0, 1)

    def true_losses(self, control: RiskControl) -> np.ndarray:
        every = np.arange(self.careful.size)
        return np.array([control.losses(*self.outcomes(every, j), checked=True).mean() for j in range(len(self.RISKS))])

    def outcomes(self, drawn: np.ndarray, setting: int) -> tuple[Outcomes, Outcomes]:
        careful, arm = self.careful[drawn], self.right[setting, drawn]
        return Outcomes(careful, careful, np.full(len(drawn), 24.0)), Outcomes(
            arm, arm, np.full(len(drawn), self.ROUNDS[setting])
        )

    def calibrate(self, control: RiskControl, drawn: np.ndarray) -> int | None:
        tested = fixed_sequence(
            map(float, range(len(self.RISKS))), lambda j: control.test(j, *self.outcomes(drawn, int(j)), checked=True)
        )
        chosen = choose(tested)
        return None if chosen is None else int(chosen.value)


@pytest.mark.parametrize(
    ("loss", "gain", "most"), [("flip", 0.0, 1.25), ("difference", 0.0, 1.25), ("difference", 0.4, 1.3)]
)
@pytest.mark.parametrize("prompts", [500, 2000])
def test_the_promise_is_kept_over_resampled_calibrations(loss, gain, most, prompts):
    stored, control = Stored(gain), RiskControl(loss, 0.01, 0.95)
    truth = stored.true_losses(control)
    assert truth[0] < 0.01 < truth[-1]
    generator = np.random.default_rng(5)
    chosen = [stored.calibrate(control, generator.integers(0, stored.careful.size, prompts)) for _ in range(RESAMPLES)]
    broken = np.mean([setting is not None and truth[setting] > 0.01 for setting in chosen])
    assert broken <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / RESAMPLES)
    if prompts == 2000:
        best = min(rounds for rounds, risk in zip(stored.ROUNDS, truth, strict=True) if risk <= 0.01)
        ratios = [np.inf if setting is None else stored.ROUNDS[setting] / best for setting in chosen]
        assert np.median(ratios) <= most


def test_a_bound_that_forgets_the_confidence_breaks_the_promise():
    stored, control = Stored(0.0), RiskControl("flip", 0.01, 0.5)
    truth, generator = stored.true_losses(control), np.random.default_rng(5)
    chosen = [stored.calibrate(control, generator.integers(0, stored.careful.size, 500)) for _ in range(RESAMPLES)]
    assert np.mean([setting is not None and truth[setting] > 0.01 for setting in chosen]) > 0.1


def test_every_policy_with_a_dial_has_values_from_the_careful_end():
    without = {name for name, policy in POLICIES.items() if not policy.dial} - {"verified"}
    assert without >= {"sequential", "random", "left-to-right"}
    for name in POLICIES.keys() - without:
        dial_name = find_dial(name, {})
        values = dial_values(dial_name, gen_length=24, block_length=8)
        assert len(set(values)) == len(values) >= 4
        assert Arm("arm", "headless", name, dial_name, values).cells
    assert dial_values("steps", gen_length=24, block_length=8) == (24, 18, 12, 9, 6, 3)
    for name in without:
        with pytest.raises(
            ValueError, match=f"^dial must be given for policy {name}, which has none by name, got none$"
        ):
            find_dial(name, {})


def test_risk_control_in_every_resample_is_risk_control_of_that_resample():
    stored, control = Stored(0.0), RiskControl("flip", 0.01, 0.95)
    drawn, generator = np.arange(1500), np.random.default_rng(3)
    flips = np.stack([control.losses(*stored.outcomes(drawn, j), checked=True) for j in range(len(stored.RISKS))])
    counts = np.vstack([np.ones(1500), generator.multinomial(1500, np.full(1500, 1 / 1500), size=20)])
    rounds = np.tile(np.array(stored.ROUNDS)[::-1], (21, 1))  # the bold end first, as a config may have it
    order = list(range(len(stored.RISKS)))[::-1]
    found = choose_calibrated(counts / 1500, flips[::-1], rounds, order, control)
    for line, chosen in zip(counts, found, strict=True):
        wanted = stored.calibrate(control, np.repeat(drawn, line.astype(int)))
        assert chosen == (-1 if wanted is None else order.index(wanted))
