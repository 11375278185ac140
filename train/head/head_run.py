"""One run of `train.py`: what it was asked for, its base, and its reference policy."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from decoding.comparison.arms import BLOCK_LENGTH, Arm, check_arms
from decoding.names import find_policy
from decoding.traces.labelling import Labelling
from models.complaints import shown
from train.commands.command_line import shipped
from train.commands.folders import MODEL, check_adapter, check_model
from train.commands.options.policy_settings import check_settings
from train.defaults.settings import Trials
from train.head.settings import CascadeFitting, Fitting, TaskRun, require_prompts
from train.tasks import require_permission

if TYPE_CHECKING:
    from decoding.policies.ete import BeamETE
    from models.denoiser import Denoiser


@dataclass(frozen=True)
class HeadRun:
    """A head from base to table; what `train.py` reads from its YAML.

    Attributes:
        model: folder or hub id of the base; None takes the shipped one.
        adapter: folder of a PEFT LoRA adapter that is merged into the base, or None.
        out: folder of the run.
        tasks: what is collected of each task.
        beam: settings of the reference policy `ete`, whose candidates and scores the traces hold.
        drivers: policies that lead through the states: name -> {policy: NAME, setting: value, ...}; `block_length` in place of
            the task's where it divides the canvas.
        relabel: driver-like entries of policy `learned`, run with the first fitted head to label the states it visits itself;
            empty skips that pass.
        labelling: how much is kept and tried of each prompt.
        fitting: how heads are fitted.
        catalogue: arms of the closing comparison; empty skips it.
        num_prompts, num_dev: prompts of each task in the comparison.
        batch_size: canvases in one forward.
        seed: of prompts, draws and the first fit.
        device: where to run; None takes the GPU if there is one.
        dtype: of the base, the same for traces and decoding; None as in `models.load`.
        run_code: let checkers run what the base writes.
        budget_hours: what collection may take; prompts are cut to it beforehand, and no part is begun after it.
        leave_out: names of tasks that the head must not see, with commas between them; recorded beside its figures.
        cascade: how the head's cascade is fitted after it; None for a head without one.
        trials: how the settings that the head decodes with by default are chosen; None leaves it without.
    """

    model: str | None
    out: Path
    tasks: Mapping[str, TaskRun]
    beam: Mapping[str, Any]
    drivers: Mapping[str, Mapping[str, Any]]
    relabel: Mapping[str, Mapping[str, Any]]
    labelling: Labelling
    fitting: Fitting
    catalogue: tuple[Arm, ...]
    num_prompts: int
    num_dev: int
    batch_size: int
    seed: int
    device: str | None
    dtype: str | None = None
    run_code: bool = False
    adapter: str | None = None
    budget_hours: float | None = None
    leave_out: str | None = None
    cascade: CascadeFitting | None = None
    trials: Trials | None = None

    def __post_init__(self) -> None:
        if not self.tasks:
            raise ValueError("tasks must name at least one task, got none")
        for name, run in self.tasks.items():
            task = run.task(name)
            require_permission(task, self.run_code)
            require_prompts(task, run)
            check_settings("ete", run.beam)
        if not self.drivers:
            raise ValueError("drivers must name at least one policy, got none")
        for name, driver in {**self.drivers, **self.relabel}.items():
            if not isinstance(driver.get("policy"), str):
                raise ValueError(f"driver {name} must name its policy, got {dict(driver)}")
            find_policy(driver["policy"], f"policy of driver {name}")
            length = driver.get(BLOCK_LENGTH, 1)
            if not isinstance(length, int) or length < 1:
                raise ValueError(
                    f"block_length of driver {name} must be a whole number of at least 1, got {shown(length)}"
                )
        for name in ("num_prompts", "num_dev", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.budget_hours is not None and not 0 < self.budget_hours < math.inf:
            raise ValueError(f"budget_hours must be a finite number above 0, got {self.budget_hours}")
        if self.cascade is not None and self.fitting.universal:
            raise ValueError("cascade must be left out for a universal head, which is bound to no base, got one")
        if self.catalogue:
            check_arms(self.catalogue)
        if self.model is not None:
            check_model(self.model, "")
        check_adapter(self.adapter)

    @property
    def base(self) -> str:
        """The base that is read."""
        return self.model or str(shipped(MODEL))


def load_base(head_run: HeadRun) -> Denoiser:
    """The base in the dtype that traces and decoding share."""
    import models

    return models.load(head_run.base, dtype=head_run.dtype, device=head_run.device, adapter=head_run.adapter)


def reference_policy(head_run: HeadRun, denoiser: Denoiser) -> BeamETE:
    """Beam ETE with the head_run's settings; refuses those of a task that cannot take their place."""
    from decoding.api import make_policy
    from decoding.policies.ete import BeamETE

    for run in head_run.tasks.values():
        make_policy("ete", {**head_run.beam, **run.beam}, denoiser)
    policy = make_policy("ete", head_run.beam, denoiser)
    assert isinstance(policy, BeamETE)
    return policy


def quieten() -> None:
    """Leave the terminal to our own lines and bars: no notes of other libraries between them."""
    import warnings

    from datasets import disable_progress_bars

    disable_progress_bars()
    for name in ("lightning", "lightning.pytorch", "lightning.pytorch.utilities.rank_zero"):
        logging.getLogger(name).setLevel(logging.ERROR)
    for library in ("lightning", "torch", "torchmetrics", "peft", "transformers", "datasets", "jsonargparse"):
        warnings.filterwarnings("ignore", module=rf"{library}(\.|$)")
