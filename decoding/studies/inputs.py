"""What the command puts into a study's hands."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from decoding.comparison.problems import CheckedProblems
from models.denoiser import Denoiser

if TYPE_CHECKING:
    from decoding.comparison.runner import Runner
    from models.heads.scoring_head import ScoringHead


@dataclass
class Cost:
    """What a study has used so far.

    Attributes:
        sequence_forwards: rows through its denoisers.
        models: checkpoint -> first digits of its fingerprint.
    """

    sequence_forwards: int = 0
    models: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class StudyInputs:
    """The base model, prompts, device and seed of a study.

    Args:
        model: checkpoint folder or hub id of the base.
        head: folder of a scoring head for it, or None.
        device: name, or None for the GPU if there is one.
        seed: of prompts and draws.
        make_problems: (task, test prompts, dev prompts) -> its prompts and checker.
        fit: fits a features-only head (see `train.commands.study.fit_features`).
        dtype: of the weights; None as in `models.load`.
        cost: counts what `denoiser` and `counted` gave out.
    """

    model: str
    head: str | None
    device: str | None
    seed: int
    make_problems: Callable[[str, int, int], CheckedProblems] = field(repr=False)
    fit: Callable[..., ScoringHead] = field(repr=False)
    dtype: str | None = None
    cost: Cost = field(default_factory=Cost)

    def denoiser(self, model: str | None = None, *, head: bool = False, **options: Any) -> Denoiser:
        """Load a checkpoint, the base by default, with its scoring head if asked; its rows are counted.

        Args:
            model: another folder or hub id.
            head: put the scoring head on.
            options: of `models.load`.

        Raises:
            ValueError: if a head is asked for and there is none.
        """
        import models

        if head and self.head is None:
            raise ValueError("head must be a folder with head.safetensors for this study, got None")
        folder = self.head if head else None
        options = {"dtype": self.dtype, "device": self.device} | options
        denoiser = models.load(model or self.model, head=folder, **options)
        self.cost.models[Path(model or self.model).name] = denoiser.fingerprint()[:12]
        return self.counted(denoiser)

    def counted(self, denoiser: Denoiser) -> Denoiser:
        """The same denoiser; its rows count from now on."""

        def count(module: Any, args: Any, kwargs: Any) -> None:
            self.cost.sequence_forwards += len(args[0] if args else kwargs["tokens"])

        denoiser.register_forward_pre_hook(count, with_kwargs=True)
        return denoiser

    def problems(self, task: str, prompts: int, *, dev: int = 1) -> CheckedProblems:
        """Prompts of a task and their checker, the same for the same seed.

        Args:
            task: its name.
            prompts: test prompts at most.
            dev: dev prompts at most.
        """
        return self.make_problems(task, prompts, dev)

    def runner(self, denoiser: Denoiser, checked: CheckedProblems, *, batch_size: int | None) -> Runner:
        """What runs arms on the prompts of a task and keeps nothing on disk.

        Args:
            denoiser: the model.
            checked: the prompts and their checker.
            batch_size: prompts in one forward; None for the device's default.
        """
        from decoding.comparison.runner import make_runner

        return make_runner(
            denoiser,
            checked.problems,
            checked.check,
            out=None,
            heads=None,
            batch_size=batch_size,
            seed=self.seed,
            progress=False,
        )

    def generator(self, device: torch.device | None = None, *, offset: int = 0) -> torch.Generator:
        """A fresh source of randomness with the study's seed.

        Args:
            device: where it lives; default the CPU.
            offset: tells streams of one study apart.
        """
        return torch.Generator(device or torch.device("cpu")).manual_seed(self.seed * 1_000_003 + offset)
