"""Which order of positions is best at one token a round, and what the weighted-entropy bound says: arXiv 2602.00286.

The answer is unique, so p_data is a point mass on the reference x*, and the forward KL of a decoding order is
J(pi) = sum_t -log p(x*_pi(t) | x*_pi(<t)), measured by committing the reference's tokens in the order that the rule chooses.
(The paper's lemma 4.1 has the expectation under the model's own prefixes, where a wrong prefix has no p_data.) Model error is
J of the random order. Assumption 4.2 is read with error_t = the mean of -log p over prompts and H_t = the mean entropy of the
position chosen; alpha is the smallest that satisfies it at every step of every order. Decoding itself is scored by the checker.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from decoding.api import generate
from decoding.comparison.curves import Array, resample
from decoding.comparison.problems import CheckedProblems
from decoding.comparison.results import Row, estimate
from decoding.comparison.runs import Encoded
from decoding.policies.quota import Sequential
from decoding.studies.chain_rule import nll
from decoding.studies.inputs import StudyInputs
from decoding.studies.picture import head, whiskers
from decoding.studies.schedules import Forced
from decoding.studies.weighted_entropy import ranks, smallest_alpha, weighted_entropy
from models.complaints import shown
from models.denoiser import Denoiser, Prediction

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ORDERS: Mapping[str, str] = {
    "left to right": "left_to_right",
    "right to left": "right_to_left",
    "random": "random",
    "low confidence last": "confidence",  # LLaDA's low_confidence remasking
    "margin": "margin",
    "entropy": "entropy",
}
FIXED = ("left to right", "right to left", "random")
EASY_FIRST = "entropy"
RECIPE = "python -m train.pretrain --config configs/train/order.yaml"


class Witness(Denoiser):
    """Another denoiser that keeps, of its last forward, -log p of the reference at every position asked for."""

    def __init__(self, inner: Denoiser, reference: Int[Tensor, "B L"]) -> None:
        super().__init__()
        self.inner, self.reference = inner, reference
        self.mask_id, self.eos_id, self.vocab_size = inner.mask_id, inner.eos_id, inner.vocab_size
        self.end_of_turn_id, self.also_ends = inner.end_of_turn_id, inner.also_ends
        self.max_length, self.tokenizer = inner.max_length, inner.tokenizer
        self.nats = torch.zeros(reference.shape, device=reference.device)

    def forward(self, tokens: Tensor, **options: Any) -> Prediction:
        """See `Denoiser.forward`."""
        prediction: Prediction = self.inner(tokens, **options)
        nats = nll(prediction.logits, self.reference[prediction.rows])
        self.nats = torch.zeros_like(self.nats).masked_scatter(prediction.rows, nats)
        return prediction


@dataclass(frozen=True)
class Followed:
    """What one order did on n prompts with canvases of T positions.

    Attributes:
        right: whether the decoded answer is.
        nats: -log p of the reference's token at each step, the reference committed before it.
        entropy: of the position at each step, there.
    """

    right: Array
    nats: Array  # [n, T]
    entropy: Array  # [n, T]


def measure(
    inputs: StudyInputs,
    *,
    bases: str = "checkpoints/order",
    points: tuple[int, ...] = (3,),
    tasks: tuple[str, ...] = ("addition-easy", "addition-carry", "addition-edge"),
    prompts: int = 12,
    growth: float = 0.1,
    slack: float = 0.01,
) -> dict[str, Any]:
    """Decode with every order on the bases of one training run and compare order, error and bound.

    Args:
        inputs: base, prompts, device and seed, from the command.
        bases: folder with the checkpoints point-1, point-2, ... of one run, the least trained first.
        points: which of them; 3 ships, the recipe makes 1 to 4.
        tasks: names of tasks with a unique answer.
        prompts: test prompts of each task.
        growth: lambda of assumption 4.2, how much earlier errors add to later ones, at least 0.
        slack: b of assumption 4.2, nats a step, at least 0.

    Raises:
        ValueError: if a checkpoint is missing, or a setting is out of range.
    """
    folders = {point: Path(bases) / f"point-{point}" for point in points}
    if not all((folder / "config.json").is_file() for folder in folders.values()):
        names = ", ".join(folder.name for folder in folders.values())
        raise ValueError(f"bases must be a folder with {names}, which `{RECIPE}` makes, got {shown(bases)}")
    if min(growth, slack) < 0:
        raise ValueError(f"growth and slack must be at least 0, got {growth} and {slack}")
    orders: list[Row] = []
    bases_rows: list[Row] = []
    for point, folder in folders.items():
        denoiser = inputs.denoiser(str(folder))
        for task in tasks:
            checked = inputs.problems(task, prompts)
            followed = {name: follow(denoiser, checked, order, inputs) for name, order in ORDERS.items()}
            key = {"task": task, "point": point, "n": len(followed[EASY_FIRST].right)}
            lines, summary = compare(followed, growth=growth, slack=slack, seed=inputs.seed)
            orders += [{**key, **line} for line in lines]
            bases_rows.append({**key, **summary})
    cut = [f"{prompts} prompts a task; the full config takes 500, multiplication among the tasks"]
    return {"orders": orders, "bases": bases_rows, "cut": cut if prompts < 500 else []}


def follow(denoiser: Denoiser, checked: CheckedProblems, order: str, inputs: StudyInputs) -> Followed:
    """Decode by an order, then commit the reference in the order that the same rule chooses.

    Args:
        denoiser: the base.
        checked: prompts with a unique answer, and their checker.
        order: that decides.
        inputs: of the study.

    Raises:
        ValueError: for a task without a unique answer.
    """
    problems = checked.problems
    encoded = Encoded.of(problems, "test", denoiser)
    if (encoded.reference < 0).any():
        raise ValueError(f"tasks must have a unique answer, got {problems.task}")
    rule = Sequential(order=order)  # type: ignore[arg-type]  # a name of ORDERS
    shared: dict[str, Any] = {
        "gen_length": problems.gen_length,
        "block_length": problems.gen_length,
        "attention_mask": encoded.attention_mask,
        "early_stop": False,
    }

    def draws() -> torch.Generator:
        return inputs.generator(denoiser.device)

    free = generate(denoiser, encoded.tokens, rule, generator=draws(), **shared)
    right = [checked.check(prompt, text) for prompt, text in zip(problems.test, free.text, strict=True)]
    reference = torch.cat([encoded.tokens, encoded.reference], 1)
    witness = Witness(denoiser, reference)
    steps: list[Tensor] = []
    made = generate(
        witness,
        encoded.tokens,
        Forced(rule, reference),
        generator=draws(),
        on_step=lambda _, reading: steps.append(torch.stack([witness.nats, reading.entropy])),
        **shared,
    )
    when = made.state.committed_round[:, -problems.gen_length :]
    position = when.argsort(-1).T + encoded.tokens.shape[1]  # [T, n]
    seen = torch.stack(steps)  # [T, 2, n, L]
    nats, entropy = seen.gather(-1, position[:, None, :, None].expand(-1, 2, -1, -1)).squeeze(-1).unbind(1)
    return Followed(np.array(right, dtype=float), as_array(nats.T), as_array(entropy.T))


def as_array(values: Float[Tensor, "n T"]) -> Array:
    """The same in numpy, float64."""
    array: Array = values.double().cpu().numpy()
    return array


def compare(followed: Mapping[str, Followed], *, growth: float, slack: float, seed: int) -> tuple[list[Row], Row]:
    """One row for each order, and what the orders together say of the base on this task.

    Args:
        followed: order -> what it did.
        growth, slack: lambda and b of assumption 4.2, at least 0.
        seed: of the resamples.
    """
    weights = resample(len(followed[EASY_FIRST].right), seed=seed)
    error = np.stack([one.nats.mean(0) for one in followed.values()])
    entropy = np.stack([one.entropy.mean(0) for one in followed.values()])
    alpha = smallest_alpha(error, entropy, growth=growth, slack=slack)
    rows: list[Row] = []
    for place, (name, one) in enumerate(followed.items()):
        bound = weighted_entropy(entropy[place], alpha=alpha, growth=growth, slack=slack)
        rows.append(
            {
                "order": name,
                "accuracy": estimate(weights @ one.right),
                "error": estimate(weights @ one.nats.sum(1)),
                "entropy": estimate(weights @ one.entropy.sum(1)),
                "weighted_entropy": weighted_entropy(entropy[place], alpha=1.0, growth=growth),
                "bound": bound if np.isfinite(bound) else None,
            }
        )
    easy = followed[EASY_FIRST]
    errors, weighted = error.sum(1), np.array([row["weighted_entropy"] for row in rows])
    best_fixed = max(FIXED, key=lambda name: followed[name].right.mean())
    return rows, {
        "model_error": estimate(weights @ followed["random"].nats.sum(1)),
        "alpha": alpha if np.isfinite(alpha) else None,
        "advantage_over_random": estimate(weights @ (easy.right - followed["random"].right)),
        "best_fixed": best_fixed,
        "advantage_over_best_fixed": estimate(weights @ (easy.right - followed[best_fixed].right)),
        "error_saved": estimate(weights @ (followed["random"].nats - easy.nats).sum(1)),
        "agreement": float(np.corrcoef(ranks(errors), ranks(weighted))[0, 1]),  # Spearman over orders
    }


MARKERS = "<>os^D"


def draw(result: dict[str, Any], figure: Figure) -> None:
    """Accuracy of every order against model error, Easy-First's advantage, and the bound beside the error."""
    from matplotlib.ticker import LogFormatter

    tasks = list(dict.fromkeys(row["task"] for row in result["bases"]))
    figure.set_size_inches(max(12, 4.6 * len(tasks)), 9.5)
    head(figure, "Six orders at one token a round on the bases of one training run", result["models"])
    above, below = figure.subfigures(2, 1, squeeze=False)[:, 0]
    panels = above.subplots(1, len(tasks), squeeze=False)[0]
    result["bases"].sort(key=lambda row: row["model_error"]["estimate"])
    for axes, task in zip(panels, tasks, strict=True):
        task_rows = [row for row in result["bases"] if row["task"] == task]
        x = [row["model_error"]["estimate"] for row in task_rows]
        for number, (name, marker) in enumerate(zip(ORDERS, MARKERS, strict=True)):
            by_point = {row["point"]: row for row in result["orders"] if (row["task"], row["order"]) == (task, name)}
            y = [by_point[row["point"]]["accuracy"]["estimate"] for row in task_rows]
            axes.plot(
                x,
                y,
                marker=marker,
                markersize=12 - 1.8 * number,
                linewidth=3.5 - 0.5 * number,
                fillstyle="none",
                label=name,
            )
        axes.set(title=f"{task} (n = {task_rows[0]['n']})", ylim=(-0.08, 1.08), ylabel="accuracy")
    advantage, bound = below.subplots(1, 2)
    for task, marker in zip(tasks, MARKERS, strict=False):
        points = [row for row in result["bases"] if row["task"] == task]
        with_interval(advantage, points, "advantage_over_random", f"{task}, over random", marker, "-")
        with_interval(advantage, points, "advantage_over_best_fixed", f"{task}, over the best fixed order", marker, ":")
    advantage.axhline(0, color="black", linewidth=0.8)
    advantage.set(
        title="Easy-First (lowest entropy first): accuracy gained, 95 % intervals", ylabel="difference in accuracy"
    )
    for axes in (*panels, advantage):
        axes.set(xlabel="model error: J of the random order [nats]", xscale="log")
    for task, marker in zip(tasks, MARKERS, strict=False):
        points = [row for row in result["orders"] if row["task"] == task and row["bound"] is not None]
        bound.scatter(
            [row["error"]["estimate"] for row in points], [row["bound"] for row in points], marker=marker, label=task
        )
    ends = [row["error"]["estimate"] for row in result["orders"]]
    bound.plot([min(ends), max(ends)], [min(ends), max(ends)], color="black", linewidth=0.8, label="bound = error")
    bound.set(title="Weighted-entropy bound (Eq. 11), each order of each base", xscale="log", yscale="log")
    bound.set(xlabel="J: -log p of the right answer in this order [nats]", ylabel="bound on J [nats]")
    for axes in (*panels, advantage, bound):
        for axis in (axes.xaxis, axes.yaxis):
            if axis.get_scale() == "log":
                axis.set_major_formatter(LogFormatter())
                axis.set_minor_formatter(LogFormatter(minor_thresholds=(1.5, 0.4)))
        axes.tick_params(labelsize=8, which="both")
        axes.grid(alpha=0.3)
        axes.legend(fontsize=7)


def with_interval(axes: Any, rows: Sequence[Row], name: str, label: str, marker: str, style: str) -> None:
    """A figure of each base against its error, with its interval.

    Args:
        axes: where to draw.
        rows: of the bases.
        name: of the figure.
        label, marker, style: of the line.
    """
    estimates = [row[name] for row in rows]
    x, middle = [row["model_error"]["estimate"] for row in rows], [one["estimate"] for one in estimates]
    axes.errorbar(x, middle, yerr=whiskers(estimates), marker=marker, capsize=2, linestyle=style, label=label)
