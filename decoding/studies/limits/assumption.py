"""Assumption 4.2 of arXiv 2602.00286 measured: does the entropy of a position tell how wrong its token is?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from decoding.api import generate
from decoding.comparison.curves import Array, resample
from decoding.comparison.results import estimate
from decoding.comparison.runs import canvas_of
from decoding.comparison.statistics import is_predicted
from decoding.policies.quota import Order, Sequential
from decoding.reading import Reading
from decoding.state import DecodeState
from decoding.studies.inputs import StudyInputs
from models.complaints import shown
from models.denoiser import Denoiser
from models.toys.convolutional import load_convolutional

BINS = 6
RECIPE = "python -m train.convolutional --config configs/train/convolutional.yaml"


def require_convolutional(folder: str) -> None:
    """Refuse a folder without a denoiser.

    Raises:
        ValueError: that says how one is made.
    """
    if not (Path(folder) / "config.json").is_file():
        raise ValueError(f"convolutional must be a folder that `{RECIPE}` makes, got {shown(folder)}")


def measure(inputs: StudyInputs, task: str, count: int, convolutional: str, shared: str) -> list[dict[str, Any]]:
    """The base on `task`, then the base and a denoiser without attention on the task both were trained on, in two orders.

    Args:
        inputs: of the study.
        task: of the base alone.
        count: test prompts of each run.
        convolutional: folder of the denoiser without attention.
        shared: the task that both were trained on.
    """
    folder = Path(convolutional)
    base, other = inputs.denoiser(), inputs.counted(load_convolutional(folder, device=inputs.device))
    inputs.cost.models[folder.name] = other.fingerprint()[:12]
    runs = [("transformer", base, task), ("transformer", base, shared), ("convolutions", other, shared)]
    orders: tuple[Order, ...] = ("confidence", "random")
    return [
        {"model": name, **assumption(inputs, denoiser, one, count, order)}
        for name, denoiser, one in runs
        for order in orders
    ]


def assumption(inputs: StudyInputs, denoiser: Denoiser, task: str, count: int, order: Order) -> dict[str, Any]:
    """error <= alpha H + lambda (earlier errors) + b: least squares over the commits of one decode a prompt.

    Args:
        inputs: of the study.
        denoiser: the model.
        task: with a unique answer.
        count: test prompts.
        order: of decoding, one token a round.
    """
    problems = inputs.problems(task, count).problems
    entropies: list[Tensor] = []

    def keep(state: DecodeState, reading: Reading) -> None:
        entropies.append(reading.entropy)

    made = generate(
        denoiser,
        list(problems.test),
        Sequential(order=order),
        gen_length=problems.gen_length,
        block_length=problems.block_length,
        generator=inputs.generator(denoiser.device),
        on_step=keep,
    )
    state, length = made.state, problems.gen_length
    references = [canvas_of(problems.references.get(p, ""), length, denoiser) for p in problems.test]
    wrong = (made.canvas.cpu() != torch.tensor(references)).double()
    turn = (state.committed_round - 1).clamp(min=0)
    entropy = torch.stack(entropies).gather(0, turn.unsqueeze(0))[0, :, -length:].double().cpu()
    by_turn = torch.argsort(turn[:, -length:].cpu(), dim=-1, stable=True)
    predicted = is_predicted(state)[:, -length:].cpu().gather(1, by_turn)
    wrong, entropy = wrong.gather(1, by_turn), entropy.gather(1, by_turn)
    earlier = wrong.cumsum(-1) - wrong  # the sum, as W_t of Eq. 11 needs it
    lines = [t[predicted].numpy() for t in (entropy, earlier, wrong)]
    prompt = torch.arange(len(wrong)).unsqueeze(1).expand_as(wrong)[predicted].numpy()
    weights = resample(len(wrong), resamples=400, seed=inputs.seed)
    fits = np.array([least_squares(lines[0], lines[1], lines[2], weights[r][prompt]) for r in range(len(weights))])
    names = ("alpha", "lambda", "b")
    return {
        "task": task,
        "order": order,
        "prompts": len(wrong),
        "error": float(lines[2].mean()),
        **{name: estimate(fits[:, index]) for index, name in enumerate(names)},
        "bins": bins(lines[0], lines[1], lines[2]),
    }


def least_squares(entropy: Array, earlier: Array, wrong: Array, weight: Array) -> Array:
    """alpha, lambda and b of wrong on (entropy, earlier, 1).

    Args:
        entropy, earlier, wrong: [N], of every commit.
        weight: [N], at least 0.
    """
    design = np.stack([entropy, earlier, np.ones_like(entropy)], -1)
    root = np.sqrt(weight)[:, None]
    coefficients: Array = np.linalg.lstsq(design * root, wrong * root[:, 0], rcond=None)[0]
    return coefficients


def bins(entropy: Array, earlier: Array, wrong: Array) -> list[dict[str, Any]]:
    """Share of wrong tokens by entropy, in equal parts of the commits, apart for clean and spoilt histories."""
    rows = []
    for spoilt in (False, True):
        selected = (earlier > 0) == spoilt
        for part in (
            np.array_split(np.argsort(entropy[selected], kind="stable"), BINS) if selected.sum() >= BINS else ()
        ):
            values = {"entropy": float(entropy[selected][part].mean()), "error": float(wrong[selected][part].mean())}
            rows.append({"spoilt": spoilt, "commits": len(part), **values})
    return rows
