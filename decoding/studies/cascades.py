"""What becomes of every exploration commit: is there a cascade, is it right, and what happens to the answer.

A cascade is what crosses the threshold because of the commit: positions with c >= C in the next reading that are below C in a
forward over the same canvas without the commit; EOS is not counted. Where the answer is unique a token is right if it is the
reference's. Elsewhere commit and cascade are right if the careful decoder, one token a round, still finishes with an answer
that the checker accepts; an error came before where it would not even without the commit. arXiv 2511.21103 leaves the
question open.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from decoding.api import generate
from decoding.comparison.curves import Array, ratio_of_means, resample
from decoding.comparison.problems import CheckedProblems
from decoding.comparison.results import Row, estimate
from decoding.comparison.runs import Encoded
from decoding.policy import Policy
from decoding.policy_by_name import make_policy
from decoding.reading import Reading
from decoding.state import DecodeState
from decoding.studies.commits import OUTCOMES, CommitEvaluator, exploration_commits
from decoding.studies.inputs import StudyInputs
from decoding.studies.picture import head
from models.complaints import shown
from models.denoiser import Denoiser

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ARMS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "beam": ("ete", {}),
    "oracle": ("ete", {"branches": 1000, "alpha": 0.0}),
    "head": ("learned-parity", {}),
    "random": ("random-parity", {}),
}
"""Who chooses the commit -> policy and settings; the oracle tries every candidate and keeps the largest cascade."""

BANDS = (0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0)


def measure(
    inputs: StudyInputs,
    *,
    tasks: tuple[str, ...] = ("countdown3", "sudoku"),
    prompts: int = 16,
    arms: tuple[str, ...] = tuple(ARMS),
    settings: dict[str, Any] | None = None,
    batch_size: int = 16,
) -> dict[str, Any]:
    """Decode with every arm and follow each exploration commit.

    Args:
        inputs: base, prompts, device and seed, from the command.
        tasks: names of tasks.
        prompts: test prompts of each task.
        arms: who chooses the commits: beam, oracle, head or random; head is left out where there is none.
        settings: of Explore-Then-Exploit, shared by all; default gamma 0.7, at which it explores.
        batch_size: prompts, and canvases, in one forward.

    Raises:
        ValueError: for an arm that is none of these.
    """
    for name in arms:
        if name not in ARMS:
            raise ValueError(f"arms must be among {', '.join(ARMS)}, got {shown(name)}")
    shared = {"gamma": 0.7} if settings is None else settings
    running = [name for name in arms if name != "head" or inputs.head is not None]
    denoiser = inputs.denoiser(head=inputs.head is not None)
    commits: list[Row] = []
    counts: dict[str, int] = {}
    for task in tasks:
        checked = inputs.problems(task, prompts)
        known = careful_answers(denoiser, checked, batch_size)
        counts[task] = len(known)  # maybe fewer than asked for
        for name in running:
            policy_name, arm_settings = ARMS[name]
            policy = make_policy(policy_name, {**shared, **arm_settings}, denoiser)
            commits_found = follow(denoiser, checked, policy, batch_size, inputs.generator(denoiser.device))
            commits += [
                {"task": task, "arm": name, **one, "sequential_right": known[one["prompt"]]} for one in commits_found
            ]
    cut = [f"{prompts} prompts a task; the full config takes 200 of six tasks"] if prompts < 200 else []
    return {
        "settings_shared": shared,
        "rows": summaries(commits, counts, running, inputs.seed),
        "commits": commits,
        "cut": cut + ([] if len(running) == len(arms) else ["no arm head: there is no scoring head"]),
    }


def careful_answers(denoiser: Denoiser, checked: CheckedProblems, batch_size: int) -> list[bool]:
    """Whether one token a round gets each prompt right: the difficulty of a prompt for this base."""
    problems, right = checked.problems, []
    for low in range(0, len(problems.test), batch_size):
        few = list(problems.test[low : low + batch_size])
        gen_length, block_length = problems.gen_length, problems.block_length
        made = generate(denoiser, few, "sequential", gen_length=gen_length, block_length=block_length)
        right += [checked.check(prompt, text) for prompt, text in zip(few, made.text, strict=True)]
    return right


def follow(
    denoiser: Denoiser, checked: CheckedProblems, policy: Policy, batch_size: int, generator: torch.Generator
) -> Iterator[Row]:
    """Decode every prompt and give one row for each of its exploration commits.

    Args:
        denoiser: the model.
        checked: prompts and checker.
        policy: one that explores.
        batch_size: prompts in one decode.
        generator: of the draws.
    """
    problems = checked.problems
    encoded = Encoded.of(problems, "test", denoiser)
    for low in range(0, len(encoded.tokens), batch_size):
        few = slice(low, low + batch_size)
        mask = None if encoded.attention_mask is None else encoded.attention_mask[few]
        steps: list[tuple[DecodeState, Reading]] = []
        made = generate(
            denoiser,
            encoded.tokens[few],
            policy,
            gen_length=problems.gen_length,
            block_length=problems.block_length,
            attention_mask=mask,
            generator=generator,
            early_stop=False,
            on_step=lambda state, reading, steps=steps: steps.append((state, reading)),  # type: ignore[misc]
        )
        commits = exploration_commits(steps, made.state)
        if len(commits.row):
            evaluator = CommitEvaluator(
                denoiser, checked, made, mask, encoded.reference[few], problems.test[few], batch_size
            )
            yield from evaluator.rows_of(commits, low)


def summaries(commits: Sequence[Row], prompts: Mapping[str, int], arms: Sequence[str], seed: int) -> list[Row]:
    """For each task and arm: all commits, then by confidence band, then by whether one token a round gets the prompt right.

    Args:
        commits: the rows of all commits.
        prompts: task -> how many were decoded.
        arms: in the order of the rows.
        seed: of the resamples.
    """
    rows = []
    for task, count in prompts.items():
        weights = resample(count, seed=seed)
        for arm in arms:
            selected = [one for one in commits if (one["task"], one["arm"]) == (task, arm)]
            groups: dict[tuple[str, str], list[Row]] = {("all", "all"): selected}
            for low, high in itertools.pairwise(BANDS):
                inside = [one for one in selected if low <= one["confidence"] < high or one["confidence"] == high == 1]
                groups["confidence", f"{low:g} to {high:g}"] = inside
            for known, name in ((True, "sequential right"), (False, "sequential wrong")):
                groups["difficulty", name] = [one for one in selected if one["sequential_right"] is known]
            for (by, name), some in groups.items():
                if some:
                    key = {"task": task, "prompts": count, "arm": arm, "by": by, "group": name}
                    rows.append({**key, **summarise(some, weights)})
    return rows


def summarise(commits: Sequence[Row], weights: Array) -> Row:
    """Shares of outcomes, size and rightness of the cascades, the final answers; intervals clustered by prompt."""

    def summed(values: Sequence[float]) -> Array:
        total = np.zeros(weights.shape[1])
        np.add.at(total, [one["prompt"] for one in commits], values)
        return total

    count = summed([1.0] * len(commits))

    def mean(values: Sequence[float]) -> Row | None:
        return estimate(ratio_of_means(weights, summed(values), count))

    size = [float(one["size"]) for one in commits]
    known = [one for one in commits if one["size_right"] is not None]
    figures: Row = {
        "commits": len(commits),
        "cascade_follows": mean([float(x > 0) for x in size]),
        "size": mean(size),
        "size_right_share": None,
        "answer_right": mean([float(one["answer_right"]) for one in commits]),
        "outcomes": {name: mean([float(one["outcome"] == name) for one in commits]) for name in OUTCOMES},
    }
    if len(known) == len(commits):
        right = summed([float(one["size_right"]) for one in commits])
        figures["size_right_share"] = estimate(ratio_of_means(weights, right, summed(size)))
    return figures


COLOURS = ("tab:green", "tab:gray", "tab:orange", "tab:red", "lightgray")


def draw(result: dict[str, Any], figure: Figure) -> None:
    """Outcomes of each arm's commits for every task, and those of the beam's by confidence band."""
    tasks = list(dict.fromkeys(row["task"] for row in result["rows"]))
    figure.set_size_inches(12, 3.4 * max(1, len(tasks)) + 0.8)
    head(figure, "What becomes of an exploration commit", result["models"])
    grid = figure.subplots(max(1, len(tasks)), 2, squeeze=False)
    for (left, right), task in zip(grid, tasks, strict=False):
        task_rows = [row for row in result["rows"] if row["task"] == task]
        bars(
            left,
            [(row["arm"], row) for row in task_rows if row["by"] == "all"],
            f"{task} ({task_rows[0]['prompts']} prompts): by who chose it",
        )
        kinds = [row for row in task_rows if row["by"] != "all" and row["arm"] == "beam"]
        bars(right, [(row["group"], row) for row in kinds], f"{task}: the beam's, by confidence and difficulty")
    handles, labels = grid[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(OUTCOMES), fontsize=9)


def bars(axes: Any, rows: Sequence[tuple[str, Row]], title: str) -> None:
    """Stacked shares of outcomes, the number of commits and the mean cascade beside each bar."""
    names = [f"{name}\n{row['commits']} commits, mean cascade {row['size']['estimate']:.1f}" for name, row in rows]
    start = np.zeros(len(rows))
    for outcome, colour in zip(OUTCOMES, COLOURS, strict=True):
        width = np.array([row["outcomes"][outcome]["estimate"] for _, row in rows])
        axes.barh(range(len(rows)), width, left=start, color=colour, label=outcome)
        start = start + width
    axes.set_yticks(range(len(rows)), names, fontsize=8)
    axes.invert_yaxis()
    axes.set(xlim=(0, 1), xlabel="share of exploration commits")
    axes.set_title(title, fontsize=10)
