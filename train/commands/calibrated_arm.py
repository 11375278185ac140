"""A calibrated decoder as an arm of a comparison."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from decoding.comparison.arms import Arm
from decoding.comparison.calibration import Calibration, require_calibrated
from decoding.comparison.problems import CheckedProblems
from decoding.names import find_policy, resolve

if TYPE_CHECKING:
    from models.denoiser import Denoiser

NAME = "calibrated"


def with_calibrated(catalogue: Sequence[Arm], arms: str | None, path: str | None) -> tuple[list[Arm], str | None]:
    """The catalogue and the names of the arms that run, with the arm of a calibration where there is one.

    Raises:
        ValueError: for a file that holds no promise.
    """
    if path is None:
        return list(catalogue), arms
    found = Calibration.load(path)
    kind = "learned" if find_policy(found.policy).head else "headless"
    arm = Arm(NAME, kind, found.policy, settings=found.chosen_settings)  # type: ignore[arg-type]
    return [*catalogue, arm], arms and f"{arms},{NAME}"


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
        canvas = ("gen_length", "block_length", "use_cache", "temperature")
        request = resolve(rule, {name: getattr(problems, name) for name in canvas})
        require_calibrated(path, denoiser, rule, request, denoiser.end_ids)
