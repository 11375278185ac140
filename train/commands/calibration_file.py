"""What `calibrate.py` writes and says once the dial is tested."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from decoding.calls.request import resolve
from decoding.comparison.arms import Arm, setting_of

if TYPE_CHECKING:
    from decoding.comparison.calibration import Calibration
    from decoding.comparison.risk_control import RiskControl
    from decoding.comparison.runner import Runner


def summarise(
    arm: Arm, control: RiskControl, runner: Runner, tested: Sequence[Mapping[str, Any]], *, checked: bool
) -> Calibration:
    """What the file holds.

    Args:
        arm: the policy with its dial.
        control: what is promised.
        runner: in which the settings tested have run.
        tested: each of them, from the careful end.
        checked: whether a checker judged the answers.
    """
    from decoding.comparison.calibration import Calibration, Conditions
    from decoding.policy_by_name import make_policy

    problems, denoiser = runner.problems, runner.denoiser
    chosen = min((row for row in tested if row["holds"]), key=lambda row: float(row["rounds"]), default=None)
    value = tested[0]["value"] if chosen is None else chosen["value"]
    rule = make_policy(arm.policy, {**arm.settings, arm.dial: setting_of(arm.dial, value)}, denoiser)
    canvas = ("gen_length", "block_length", "use_cache", "temperature")
    request = resolve(rule, {name: getattr(problems, name) for name in canvas})
    return Calibration(
        policy=arm.policy,
        settings=arm.settings,
        dial=arm.dial,
        chosen=None if chosen is None else value,
        bound=None if chosen is None else chosen["bound"],
        loss=control.loss,
        max_loss=control.max_loss,
        confidence=control.confidence,
        task=problems.task,
        prompts=str(runner.ledger.header["prompts"]),
        n=len(problems.dev),
        checked=checked,
        tested=tested,
        conditions=Conditions.of(denoiser, rule, request, denoiser.end_ids),
        reference=None if chosen is None else reference_of(runner, replace(arm, values=(value,))),
    )


def reference_of(runner: Runner, arm: Arm) -> dict[str, Any]:
    """What later prompts are compared with: the scores of the calibration prompts at the setting chosen.

    Args:
        runner: in which the arm has run.
        arm: with one value of its dial.
    """
    from decoding.comparison.shift.exchangeable import Reference

    (cell,) = runner.cells_of(arm)
    table = runner.ledger.table("dev", cell)
    return asdict(Reference.of({name: values.tolist() for name, values in table.items()}))


def report(found: Calibration, control: RiskControl) -> str:
    """Every setting tested, the one chosen, and where none holds how many prompts might do."""
    lines = [f"{found.dial:>12}   rounds     loss  upper bound  accuracy"]
    for row in found.tested:
        accuracy = "-" if row["accuracy"] is None else f"{row['accuracy']:.3f}"
        figures = f"{row['value']:>12g} {row['rounds']:8.2f} {row['loss']:8.4f} {row['bound']:12.4f} {accuracy:>9}"
        lines.append(figures + ("" if row["holds"] else "  fails"))
    promise = f"mean loss ({found.loss}) at most {found.max_loss:g} with confidence {found.confidence:g}"
    if found.chosen is not None:
        return "\n".join([*lines, f"{found.dial} {found.chosen:g}: {promise}, on {found.n} prompts of {found.task}"])
    needed = control.prompts_needed(max(0.0, found.tested[0]["loss"]))
    more = "no number of prompts would do" if needed is None else f"about {needed} prompts would do"
    lines.append(f"no setting tested has {promise}, on {found.n} prompts of {found.task}")
    return "\n".join([*lines, f"at the loss seen at the careful end {more}"])
