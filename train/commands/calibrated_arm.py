"""A calibrated decoder as an arm of a comparison."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from decoding.calls.request import resolve
from decoding.comparison.arms import USE_CACHE, Arm
from decoding.comparison.calibration import Calibration, require_calibrated
from decoding.comparison.problems import CheckedProblems
from decoding.names import find_policy

if TYPE_CHECKING:
    from decoding.comparison.risk_control import RiskControl
    from models.denoiser import Denoiser

NAME = "calibrated"


def with_calibrated(
    catalogue: Sequence[Arm], arms: str | None, path: str | None, tasks: str
) -> tuple[list[Arm], str | None]:
    """The catalogue and the names of the arms that run, with the arm of a calibration where there is one.

    Args:
        catalogue: the arms declared.
        arms: names of those that run, with commas between them, or None.
        path: file of the calibration, or None.
        tasks: names of the tasks, with commas between them.

    Raises:
        ValueError: for a file that holds no promise, or one about another task.
    """
    if path is None:
        return list(catalogue), arms
    found = Calibration.load(path)
    for name in tasks.split(","):
        found.require_task(name.strip(), path)
    kind = "learned" if find_policy(found.policy).head else "headless"
    settings = {**found.chosen_settings, USE_CACHE: found.conditions.use_cache}
    arm = Arm(NAME, kind, found.policy, settings=settings)  # type: ignore[arg-type]
    return [*catalogue, arm], arms and f"{arms},{NAME}"


def dial_control(choose: str, *, num_dev: int, tuning: int) -> RiskControl | None:
    """What chooses dials: None the point estimate, else the promise of at most 1 % flips at confidence .95.

    Raises:
        ValueError: for so few dev prompts that no dial could hold, and for settings tuned on the same prompts.
    """
    if choose != NAME:
        return None
    from decoding.comparison.risk_control import RiskControl

    control = RiskControl()
    needed = control.prompts_needed()
    if needed is None or num_dev < needed:
        raise ValueError(f"num_dev must be at least {needed} with choose {choose}, got {num_dev}")
    if tuning:
        raise ValueError(f"tuning must be 0 with choose {choose}, whose prompts must choose nothing else, got {tuning}")
    return control


def require_arm(path: str | None, tasks: Sequence[CheckedProblems], denoiser: Denoiser) -> None:
    """Refuse a comparison whose model, head or canvas is not that of the calibration, where there is one.

    Raises:
        ValueError: naming the first condition that differs.
    """
    from decoding.policy_by_name import make_policy

    if path is None:
        return
    found = Calibration.load(path)
    rule = make_policy(found.policy, found.chosen_settings, denoiser)
    for problems in (checked.problems for checked in tasks):
        canvas = {name: getattr(problems, name) for name in ("gen_length", "block_length", "temperature")}
        request = resolve(rule, {**canvas, "use_cache": found.conditions.use_cache})  # the arm's own
        require_calibrated(path, denoiser, rule, request, denoiser.end_ids)
