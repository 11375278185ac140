"""When a batch of k branches costs no more than one: Fig. 5 of arXiv 2511.21103, and what exploration does beyond that point.

Latency is that of one batched forward over `prompts` rows times k branches; the knee is the largest k up to which no forward
takes more than `tolerance` times as long as that of k = 1. Then Explore-Then-Exploit runs for every k: rounds, accuracy,
sequence forwards and wall clock.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch

from decoding.calls.fitting import with_cache
from decoding.comparison.arms import Arm
from decoding.comparison.curves import Array, ratio_of_means, resample
from decoding.comparison.results import Row, estimate
from decoding.comparison.runner import Runner
from decoding.studies.inputs import StudyInputs
from decoding.studies.picture import head, whiskers
from models.denoiser import Denoiser
from models.devices import now

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def measure(
    inputs: StudyInputs,
    *,
    tasks: tuple[str, ...] = ("countdown3", "sudoku"),
    prompts: int = 16,
    branches: tuple[int, ...] = (1, 2, 4, 8, 16, 32),
    settings: dict[str, Any] | None = None,
    rows: tuple[int, ...] = (1, 4),
    lengths: tuple[int, ...] = (48, 162),
    caches: tuple[str, ...] = ("none", "dual"),
    use_cache: Literal["none", "prefix", "dual"] = "none",
    block_length: int = 16,
    repeats: int = 5,
    tolerance: float = 1.25,
    dtype: str = "float32",
) -> dict[str, Any]:
    """Time batched forwards, find the knee, and decode with every k.

    Args:
        inputs: base, prompts, device and seed, from the command.
        tasks: names of tasks to decode.
        prompts: test prompts of each task.
        branches: numbers of branches k, ascending from 1.
        settings: of Explore-Then-Exploit; default gamma 0.7, at which it explores.
        rows: prompts in a forward.
        lengths: tokens of prompt and canvas of the forwards that are timed.
        caches: none, prefix or dual: whole canvases, or only what a block cache computes anew.
        use_cache: none, prefix or dual, of the decoding with every k.
        block_length: masks at the end of a canvas that are asked for.
        repeats: forwards timed of each kind; the median counts.
        tolerance: how much slower than k = 1 is still free, at least 1.
        dtype: of the weights while forwards are timed; decoding is in float32.

    Raises:
        ValueError: if branches do not ascend from 1 or the tolerance is below 1.
    """
    if list(branches) != sorted(set(branches)) or branches[0] != 1:
        raise ValueError(f"branches must ascend from 1, got {branches}")
    if tolerance < 1:
        raise ValueError(f"tolerance must be at least 1, got {tolerance}")
    shared = {"use_cache": use_cache, **({"gamma": 0.7} if settings is None else settings)}
    timed = inputs.denoiser(dtype=getattr(torch, dtype))
    latency: list[Row] = []
    knees = []
    for cache, length, count in itertools.product(caches, lengths, rows):
        seconds = time_forwards(inputs, timed, cache, length, count, branches, block_length, repeats)
        weights = resample(repeats, seed=inputs.seed)
        setting = {"cache": cache, "length": length, "rows": count}
        medians = [medians_of(weights, one) for one in seconds]
        slower = [median / medians[0] for median in medians]
        for k, median, ratio in zip(branches, medians, slower, strict=True):
            latency.append(
                {**setting, "branches": k, "milliseconds": estimate(1000 * median), "times_slower": estimate(ratio)}
            )
        knees.append({**setting, "knee": knee(branches, [float(ratio[0]) for ratio in slower], tolerance)})
    decoded = []
    denoiser = inputs.denoiser()
    for task in tasks:
        runner = inputs.runner(denoiser, inputs.problems(task, prompts), batch_size=1)
        decoded += decode_rows(runner, shared, branches)
    cut = [f"{prompts} prompts a task, one at a time; the full config takes 40"] if prompts < 40 else []
    return {"shared": shared, "latency": latency, "knees": knees, "decoded": decoded, "cut": cut}


@torch.inference_mode()
def time_forwards(
    inputs: StudyInputs,
    denoiser: Denoiser,
    cache: str,
    length: int,
    rows: int,
    branches: Sequence[int],
    block_length: int,
    repeats: int,
) -> list[Array]:
    """Seconds of every repeat for each k; the ks take turns, so that a slow moment of the machine hits all of them.

    Args:
        inputs: of the study.
        denoiser: the model.
        cache: none, prefix or dual.
        length: positions of a canvas.
        rows: prompts in the batch.
        branches: the ks.
        block_length: masked positions at the end.
        repeats: timed forwards of each k.
    """
    model = denoiser if cache == "none" else inputs.counted(with_cache(denoiser, cache))
    generator = inputs.generator(offset=length)
    tokens = torch.randint(0, 64, (rows, length), generator=generator).to(denoiser.device)
    tokens = torch.where(tokens == denoiser.mask_id, 64, tokens)
    tokens[:, -block_length:] = denoiser.mask_id
    seconds: list[list[float]] = [[] for _ in branches]
    for turn, (index, k) in itertools.product(range(repeats + 1), enumerate(branches)):
        owner = torch.arange(rows, device=tokens.device)
        if cache != "none":  # the block opens: not timed
            model(tokens, rows=tokens == denoiser.mask_id, owner=owner, refresh=torch.ones_like(owner).bool())
        canvases, owners = tokens.repeat_interleave(k, 0), owner.repeat_interleave(k)
        masked, keep = canvases == denoiser.mask_id, torch.zeros_like(owners, dtype=torch.bool)
        began = now(denoiser.device)
        model(canvases, rows=masked, owner=owners, refresh=keep)
        spent = now(denoiser.device) - began
        if turn:  # the first one warms up
            seconds[index].append(spent)
    return [np.array(one) for one in seconds]


def medians_of(weights: Array, values: Array) -> Array:
    """Weighted median of the values in every resample: the smallest v with half of the weight at or below it."""
    order = np.argsort(values, kind="stable")
    below = weights[:, order].cumsum(1) >= 0.5 - 1e-9
    medians: Array = values[order][below.argmax(1)]
    return medians


def knee(branches: Sequence[int], slower: Sequence[float], tolerance: float) -> int:
    """The largest k up to which no forward is more than `tolerance` times slower than that of k = 1."""
    free = [
        k for k, ratio in itertools.takewhile(lambda pair: pair[1] <= tolerance, zip(branches, slower, strict=True))
    ]
    return free[-1]


def decode_rows(runner: Runner, settings: dict[str, Any], branches: Sequence[int]) -> list[Row]:
    """Rounds, accuracy, forwards and seconds of every k, prompts one at a time, paired with k = 1."""
    arms = [Arm(f"k = {k}", "headless", "ete", settings={**settings, "branches": k}) for k in branches]
    runner.run(arms, "test")
    tables = [runner.ledger.table("test", runner.cells_of(arm)[0]) for arm in arms]
    weights, first = runner.weights("test"), tables[0]
    return [
        {
            "task": runner.problems.task,
            "branches": k,
            "n": weights.shape[1],
            "accuracy": estimate(weights @ table["right"]),
            "rounds": estimate(weights @ table["rounds"]),
            "sequence_forwards": estimate(weights @ table["sequence_forwards"]),
            "milliseconds": estimate(1000 * weights @ table["seconds"]),
            "rounds_ratio": estimate(ratio_of_means(weights, table["rounds"], first["rounds"])),
            "seconds_ratio": estimate(ratio_of_means(weights, table["seconds"], first["seconds"])),
        }
        for k, table in zip(branches, tables, strict=True)
    ]


MARKERS = "osD^vP*X"


def draw(result: dict[str, Any], figure: Figure) -> None:
    """Latency against k with the knee, then rounds, accuracy and wall clock of the decodes against k."""
    figure.set_size_inches(13, 9)
    head(figure, f"Latency and decoding by branches, 95 % intervals, {result['device']}", result["models"])
    (first, second), (third, fourth) = figure.subplots(2, 2)
    for index, knee in enumerate(result["knees"]):
        task_rows = [
            row for row in result["latency"] if all(row[name] == knee[name] for name in ("cache", "length", "rows"))
        ]
        cache = "" if knee["cache"] == "none" else f", {knee['cache']} cache"
        name = f"{knee['length']} tokens, {knee['rows']} prompt{'s' * (knee['rows'] > 1)}{cache}: k = {knee['knee']}"
        style = "-" if knee["cache"] == "none" else "--"
        line(first, task_rows, "times_slower", name, MARKERS[index % len(MARKERS)], style)
    ks = sorted({row["branches"] for row in result["latency"]})
    tolerance = result["settings"]["tolerance"]
    first.plot(ks, ks, color="black", linestyle=":", label="k times as slow")
    first.axhline(tolerance, color="black", linewidth=0.8, label=f"free: at most {tolerance:g} times")
    first.set(title="One batched forward; k = knee of each", ylabel="latency / latency at k = 1", yscale="log")
    first.yaxis.set_major_formatter("{x:g}")
    first.yaxis.set_minor_formatter("{x:g}")
    for axes, name, label in (
        (second, "rounds", "rounds a prompt"),
        (third, "accuracy", "accuracy"),
        (fourth, "milliseconds", "wall clock a prompt [ms]"),
    ):
        for index, task in enumerate(dict.fromkeys(row["task"] for row in result["decoded"])):
            task_rows = [row for row in result["decoded"] if row["task"] == task]
            line(axes, task_rows, name, f"{task} (n = {task_rows[0]['n']})", MARKERS[index])
        axes.set(title=f"Explore-Then-Exploit: {label.partition(' [')[0]}", ylabel=label)
    third.set_ylim(-0.05, 1.05)
    second.set_ylim(bottom=0)
    fourth.set_ylim(bottom=0)
    for axes in (first, second, third, fourth):
        axes.set_xscale("log", base=2)
        axes.set_xticks(ks, [str(k) for k in ks])
        axes.set_xlabel("branches k")
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    first.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.15), ncols=2)  # twelve lines leave no room


def line(axes: Any, rows: Sequence[Row], name: str, label: str, marker: str, style: str = "-") -> None:
    """One figure against k, with its intervals.

    Args:
        axes: where to draw.
        rows: of the result, in the order of k.
        name: of the figure.
        label, marker, style: of the line.
    """
    values = [row[name] for row in rows]
    ks, middle = [row["branches"] for row in rows], [one["estimate"] for one in values]
    axes.errorbar(
        ks,
        middle,
        yerr=whiskers(values),
        marker=marker,
        markersize=4,
        capsize=2,
        linewidth=1,
        linestyle=style,
        label=label,
    )
