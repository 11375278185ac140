"""What a comparison says in words: claims that survive many comparisons, and the ways in which exploration fails."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from decoding.comparison import curves
from decoding.comparison.arms import REFERENCE
from decoding.comparison.curves import Array
from decoding.comparison.results import CEILING, Measured, Pair, Row, best_headless, named
from decoding.comparison.runner import Runner

ENOUGH = 500  # prompts; no claim from a curve of fewer
LEVEL = 0.05
NOTHING_TO_WIN = 0.10  # best headless arm this close to the practical ceiling
MOST = 0.5
UNCHECKED = "no checker"  # the finding that says so


def verdicts(runner: Runner, measured: Sequence[Measured]) -> list[Row]:
    """Every sentence about one task, as rows {task, arm, finding, sentence}."""
    sentences = [
        *sample_size(runner),
        *reference_failures(measured),
        *headroom(measured),
        *claims(measured),
        *failure_signatures(runner, measured),
    ]
    return [
        *judged_by_agreement(runner),
        *(
            {"task": runner.problems.task, "arm": arm, "finding": finding, "sentence": sentence}
            for arm, finding, sentence in sentences
        ),
    ]


Sentences = Iterator[tuple[str | None, str, str]]


def judged_by_agreement(runner: Runner) -> list[Row]:
    """The row that says so where there is no checker."""
    if runner.problems.checked:
        return []
    task, what = runner.problems.task, f"accuracy is the share of texts that are those of {REFERENCE}"
    return [{"task": task, "arm": None, "finding": UNCHECKED, "sentence": f"{task} has no checker: {what}."}]


def sample_size(runner: Runner) -> Sentences:
    """Say when there are too few prompts for a claim."""
    prompts = len(runner.problems.test)
    if prompts < ENOUGH:
        yield (
            None,
            "few prompts",
            f"{prompts} test prompts: a look, not a claim ({ENOUGH} or more prompts make a curve).",
        )


def reference_failures(measured: Sequence[Measured]) -> Sentences:
    """Say which arms have no setting at reference accuracy, and which choices did not hold on the test split."""
    for item in measured:
        name = item.arm.name
        if item.at.dial is None:
            yield name, "null", f"no setting of {name} is within one point of {REFERENCE} on the dev split."
        elif item.at.holds is False:
            lost = -100 * float(item.at.difference[0])
            yield name, "does not hold", f"{name}, chosen on dev, is {lost:.1f} points under {REFERENCE} on test."


def headroom(measured: Sequence[Measured]) -> Sentences:
    """Say when the best headless arm is already as good as the practical ceiling."""
    ceiling, rival = named(measured, CEILING), best_headless(measured)
    if ceiling is None or rival is None or ceiling.at.dial is None:
        return
    ratio = float(rival.at.rounds[0] / ceiling.at.rounds[0])
    if ratio <= 1 + NOTHING_TO_WIN:
        sentence = f"{rival.arm.name} needs {ratio:.2f} times the rounds of the practical ceiling: nothing to win here."
        yield rival.arm.name, "no headroom", sentence


def claims(measured: Sequence[Measured]) -> Sentences:
    """For each learned arm, the headless arms that need more, fewer or as many rounds at reference, adjusted by Holm.

    An arm whose dial does not hold on the test split is at another accuracy, and no rival of those that do.
    """
    holding = [m for m in measured if m.at.dial is not None and m.at.holds is not False]
    rivals = [m for m in holding if m.arm.kind == "headless" and m.arm.name != REFERENCE]
    for item in holding:
        if item.arm.kind != "learned" or not rivals:
            continue
        ratios = [item.at.rounds / rival.at.rounds for rival in rivals]
        adjusted = curves.holm([curves.p_value(ratio, null=1.0) for ratio in ratios])
        groups: dict[str, list[str]] = {"fewer rounds": [], "more rounds": [], "no difference": []}
        for rival, ratio, p in zip(rivals, ratios, adjusted, strict=True):
            finding = "no difference" if p >= LEVEL else "fewer rounds" if ratio[0] < 1 else "more rounds"
            groups[finding].append(f"{rival.arm.name} ({ratio[0]:.2f})")
        for finding, names in groups.items():
            if names:
                sentence = (
                    f"{item.arm.name}, {finding} at reference (Holm, {1 - LEVEL:.0%}) against {', '.join(names)}."
                )
                yield item.arm.name, finding, sentence


def failure_signatures(runner: Runner, measured: Sequence[Measured]) -> Sentences:
    """The known ways in which exploration fails, of every arm that exploits by confidence against `threshold` at the same C.

    No exploration: the same rounds and forwards, prompt by prompt. Stalling: as many rounds, and most rounds or commits
    are ones that nothing but the need of progress made. Accuracy collapse: less accurate by the interval. Wall clock:
    fewer rounds by the interval, but more seconds or sequence forwards.
    """
    plain = {cell.settings["threshold"]: cell for m in measured if m.arm.policy == "threshold" for cell in m.cells}
    for item in measured:
        seen: dict[str, list[str]] = {}
        for cell in item.cells:
            same = plain.get(cell.settings.get("threshold"))
            if same is not None and item.arm.policy != "threshold":
                a, b = runner.ledger.table("test", cell), runner.ledger.table("test", same)
                for finding, detail in signatures(runner.weights("test"), a, b):
                    seen.setdefault(finding, []).append(f"at {cell.settings['threshold']:g} {detail}")
        for finding, details in seen.items():
            yield (
                item.arm.name,
                finding,
                f"{item.arm.name}, {finding} against threshold at the same C: {'; '.join(details)}.",
            )


def signatures(weights: Array, table: Mapping[str, Array], plain: Mapping[str, Array]) -> Iterator[tuple[str, str]]:
    """The signatures of one cell against the plain threshold, from the figures of every prompt.

    Args:
        weights: [R, n] over prompts.
        table, plain: the columns [n] of both.
    """
    if all(np.array_equal(table[name], plain[name]) for name in ("rounds", "sequence_forwards", "right")):
        yield "no exploration", "every prompt as there"
        return
    pair = Pair.between(weights, table, plain)
    rounds, forwards = float(pair.rounds_ratio[0]), float(pair.sequence_forwards_ratio[0])
    fewer, lost = curves.interval(pair.rounds_ratio), curves.interval(pair.accuracy_difference)
    seconds = float(table["seconds"].sum() / plain["seconds"].sum())
    idle = float(table["idle"].sum() / table["rounds"].sum())
    forced = 1 - float(table["unforced"].sum() / max(table["commits"].sum(), 1))
    if rounds >= 1 and max(idle, forced) > MOST:
        yield "stalling", f"{rounds:.2f} × rounds, {idle:.0%} of them idle, {forced:.0%} of the commits unaccepted"
    if lost is not None and lost.high < 0:
        yield "accuracy collapse", f"{100 * lost.estimate:.1f} points, {100 * lost.high:.1f} or worse"
    if fewer is not None and fewer.high < 1 and max(seconds, forwards) > 1:
        yield "wall clock", f"{rounds:.2f} × rounds but {forwards:.2f} × forwards, {seconds:.2f} × seconds"
