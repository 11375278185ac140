"""What a whole run of `train.py` takes beside collection: hours of each later stage, memory, disk and download."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from decoding.comparison.arms import REFERENCE
from models.ranks import launched
from train.head.price.amounts import Pace, Size
from train.head.settings import VARIANTS

if TYPE_CHECKING:
    from torch import nn

    from models.denoiser import Denoiser
    from train.head.head_run import HeadRun

BACKWARD = 3.0  # a forward and backward of a block, in forwards
LOOKS = 1.5  # a decode with a head and its looks, in decodes of a rule
FURTHER_SCREENS, CONFIRMS = 8, 5  # of the trials beside a screen for each bound


@dataclass(frozen=True)
class Weights:
    """What the base's weights take.

    Attributes:
        download: bytes that were not on this machine before the run was asked about.
        memory: bytes held once they are loaded; the parameters.
    """

    download: int
    memory: int = 0

    @staticmethod
    def before(base: str) -> Weights:
        """Asked before the base is loaded."""
        from models.checkpoints.hub import bytes_to_download

        return Weights(bytes_to_download(base))

    def loaded(self, denoiser: Denoiser) -> Weights:
        """With what is held now."""
        return replace(self, memory=_held(denoiser))


def whole_run(
    head_run: HeadRun, denoiser: Denoiser, tasks: Mapping[str, tuple[Size, Pace]], weights: Weights
) -> list[str]:
    """Lines for people: collection, fits, trials and comparison in hours, and what must be there for them.

    Args:
        head_run: the run.
        denoiser: the base.
        tasks: task -> its collection, and the pace of its prompts.
        weights: what was known before the probe.
    """
    size = sum((one for one, _ in tasks.values()), Size())
    passes = 2 if head_run.relabel else 1
    ways = launched().size
    hours = {
        "collection": passes * size.seconds / ways / 3600,
        "fits": passes * _fits(head_run, denoiser, tasks) / ways / 3600,
        "cascade": 0.0 if head_run.cascade is None else head_run.cascade.minutes / 60,
        "trials": math.fsum(_trials(head_run, pace) for _, pace in tasks.values()) / 3600,
        "comparison": math.fsum(_comparison(head_run, pace) for _, pace in tasks.values()) / 3600,
    }
    said = ", ".join(f"{name} {value:.2f}" for name, value in hours.items() if value)
    twice = ", the second in states of the head" if head_run.relabel else ""
    kept = head_run.fitting.gigabytes
    traces, own = passes * size.gigabytes, _own_weights(head_run, denoiser) / 1e9
    return [
        f"collection: {size} on {denoiser.device}, {passes} of them{twice}",
        f"whole run: about {sum(hours.values()):.2f} h ({said})",
        f"memory: {_memory(denoiser, weights)}, and at most {kept:g} GB of the base's outputs kept for the fits",
        f"disk: {traces + own:.3f} GB in {head_run.out} (traces {traces:.3f}, weights of heads {own:.3f})",
        f"download: {weights.download / 1e9:.2f} GB" if weights.download else "download: nothing, the base is here",
    ]


def _fits(head_run: HeadRun, denoiser: Denoiser, tasks: Mapping[str, tuple[Size, Pace]]) -> float:
    """Seconds of the fits of the heads: the base's forward of each state, kept where there is room, and their own blocks."""
    fitting, whole = head_run.fitting, len(denoiser.blocks)
    seconds = 0.0
    for size, pace in tasks.values():
        kept = size.states * pace.length * denoiser.hidden_size * 3 * 4 < fitting.gigabytes * 1e9 / len(tasks)
        for name in fitting.variants:
            recipe = VARIANTS[name]
            own = BACKWARD * (recipe.blocks or fitting.blocks) / whole if recipe.variant in ("lora", "fork") else 0.05
            trunk = 1 if kept else fitting.epochs
            seconds += fitting.seeds * size.states * pace.seconds * (trunk + fitting.epochs * own)
    return seconds


def _decode(pace: Pace) -> float:
    """Seconds of a rule's decode of a prompt."""
    return pace.seconds * min(one.canvases for one in pace.decoded.values())


def _trials(head_run: HeadRun, pace: Pace) -> float:
    """Seconds of choosing what the head decodes with."""
    if head_run.trials is None:
        return 0.0
    trials = head_run.trials
    decodes = (len(trials.bounds) + LOOKS * FURTHER_SCREENS) * trials.screen + LOOKS * CONFIRMS * trials.confirm
    return decodes * _decode(pace)


def _comparison(head_run: HeadRun, pace: Pace) -> float:
    """Seconds of the closing comparison of a task; its reference takes a round a token."""
    one_a_round = 2 * max(one.masked for one in pace.decoded.values()) * pace.seconds
    prompts = head_run.num_prompts + head_run.num_dev
    return prompts * math.fsum(
        one_a_round if cell.policy == REFERENCE else LOOKS * _decode(pace)
        for arm in head_run.catalogue
        for cell in arm.cells
    )


def _own_weights(head_run: HeadRun, denoiser: Denoiser) -> float:
    """Bytes of the low-rank weights of heads and cascade."""
    sides = sum(module.weight.shape[0] + module.weight.shape[1] for module in _linear(denoiser))
    fitting = head_run.fitting
    heads = fitting.seeds * len(fitting.variants) * fitting.blocks * fitting.rank
    cascade = 0 if head_run.cascade is None else head_run.cascade.blocks * head_run.cascade.rank
    return 4.0 * sides * (heads + cascade)


def _linear(denoiser: Denoiser) -> list[nn.Linear]:
    from torch import nn

    return [module for module in denoiser.blocks[-1].modules() if isinstance(module, nn.Linear)]


def _memory(denoiser: Denoiser, weights: Weights) -> str:
    """What is held with the weights alone, and at the most so far."""
    import torch

    if denoiser.device.type == "cuda":
        peak = torch.cuda.max_memory_allocated(denoiser.device)
        return f"{weights.memory / 1e9:.1f} GB of the device for the base, {peak / 1e9:.1f} GB at the most so far"
    from resource import RUSAGE_SELF, getrusage

    peak = getrusage(RUSAGE_SELF).ru_maxrss * 1024
    return f"{weights.memory / 1e9:.2f} GB of weights, {peak / 1e9:.1f} GB of this process at the most so far"


def _held(denoiser: Denoiser) -> int:
    return sum(parameter.nbytes for parameter in denoiser.parameters())
