"""What a comparison says in words: claims that survive many comparisons, and the ways in which exploration fails."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from decoding import curves
from decoding.arms import REFERENCE, Arm, Cell
from decoding.runner import Runner
from decoding.standings import CEILING, Measured, Pair, Row, best_headless, named

ENOUGH = 500  # prompts; no claim from a curve of fewer
LEVEL = 0.05
NOTHING_TO_WIN = 0.10  # best headless arm this close to the practical ceiling
MOST = 0.5


def verdicts(runner: Runner, measured: Sequence[Measured]) -> list[Row]:
    """Every sentence about one task, as rows {task, arm, finding, sentence}."""
    said = [
        *sample_size(runner),
        *standing(measured),
        *headroom(measured),
        *claims(measured),
        *failure_signatures(runner, measured),
    ]
    return [
        {"task": runner.problems.task, "arm": arm, "finding": finding, "sentence": sentence}
        for arm, finding, sentence in said
    ]


Said = Iterator[tuple[str | None, str, str]]


def sample_size(runner: Runner) -> Said:
    """Say when there are too few prompts for a claim."""
    prompts = len(runner.problems.test)
    if prompts < ENOUGH:
        yield (
            None,
            "few prompts",
            f"{prompts} test prompts: a look, not a claim ({ENOUGH} or more prompts make a curve).",
        )


def standing(measured: Sequence[Measured]) -> Said:
    """Say which arms have no setting at reference accuracy, and which choices did not hold on the test split."""
    for item in measured:
        name = item.arm.name
        if item.at.dial is None:
            yield name, "null", f"no setting of {name} is within one point of {REFERENCE} on the dev split."
        elif item.at.holds is False:
            lost = -100 * float(item.at.difference[0])
            yield name, "does not hold", f"{name}, chosen on dev, is {lost:.1f} points under {REFERENCE} on test."


def headroom(measured: Sequence[Measured]) -> Said:
    """Say when the best headless arm is already as good as the practical ceiling."""
    ceiling, rival = named(measured, CEILING), best_headless(measured)
    if ceiling is None or rival is None or ceiling.at.dial is None:
        return
    ratio = float(rival.at.rounds[0] / ceiling.at.rounds[0])
    if ratio <= 1 + NOTHING_TO_WIN:
        said = f"{rival.arm.name} needs {ratio:.2f} times the rounds of the practical ceiling: nothing to win here."
        yield rival.arm.name, "no headroom", said


def claims(measured: Sequence[Measured]) -> Said:
    """For each learned arm, the headless arms that it beats and is beaten by in rounds at reference, adjusted by Holm."""
    rivals = [m for m in measured if m.arm.kind == "headless" and m.arm.name != REFERENCE and m.at.dial is not None]
    for item in measured:
        if item.arm.kind != "learned" or item.at.dial is None or not rivals:
            continue
        ratios = [item.at.rounds / rival.at.rounds for rival in rivals]
        adjusted = curves.holm([curves.p_value(ratio, null=1.0) for ratio in ratios])
        for rival, ratio, p in zip(rivals, ratios, adjusted, strict=True):
            if p < LEVEL:
                name, less = item.arm.name, ratio[0] < 1
                said = (
                    f"{name} needs {ratio[0]:.2f} times the rounds of {rival.arm.name} at reference (Holm p {p:.3f})."
                )
                yield name, "fewer rounds" if less else "more rounds", said
            else:
                said = f"{item.arm.name} and {rival.arm.name} do not differ in rounds at reference (Holm p {p:.2f})."
                yield item.arm.name, "no difference", said


def failure_signatures(runner: Runner, measured: Sequence[Measured]) -> Said:
    """The known ways in which exploration fails, of every arm that exploits by confidence against `threshold` at the same C.

    Stalling: as many rounds, and most rounds or commits are ones that nothing but the need of progress made. Accuracy
    collapse: less accurate by the interval. Wall clock: fewer rounds, but more seconds or sequence forwards.
    """
    plain = {cell.settings["threshold"]: cell for m in measured if m.arm.policy == "threshold" for cell in m.cells}
    for item in measured:
        for cell in item.cells:
            same = plain.get(cell.settings.get("threshold"))
            if same is not None and item.arm.policy != "threshold":
                yield from _signatures(runner, item.arm, cell, same)


def _signatures(runner: Runner, arm: Arm, cell: Cell, plain: Cell) -> Said:
    table, base = runner.ledger.table("test", cell), runner.ledger.table("test", plain)
    pair = Pair.of(runner, "test", cell, plain)
    rounds, forwards = float(pair.rounds_ratio[0]), float(pair.sequence_forwards_ratio[0])
    seconds = float(table["seconds"].sum() / base["seconds"].sum())
    idle = float(table["idle"].sum() / table["rounds"].sum())
    forced = 1 - float(table["unforced"].sum() / max(table["commits"].sum(), 1))
    lost = curves.interval(pair.accuracy_difference)
    against = f"against {plain.label}"
    if rounds >= 1 and max(idle, forced) > MOST:
        said = f"{cell.label} stalls: {rounds:.2f} times the rounds {against}, nothing accepted in {idle:.0%} of them"
        yield arm.name, "stalling", f"{said}, {forced:.0%} of the commits forced or exploring."
    if lost is not None and lost.high < 0:
        said = f"{cell.label} loses {-100 * lost.estimate:.1f} points ({-100 * lost.high:.1f} or more) {against}."
        yield arm.name, "accuracy collapse", said
    if rounds < 1 and max(seconds, forwards) > 1:
        said = f"{cell.label} takes {rounds:.2f} times the rounds but {forwards:.2f} times the sequence forwards"
        yield arm.name, "wall clock", f"{said} and {seconds:.2f} times the seconds {against}."
