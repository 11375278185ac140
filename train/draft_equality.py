"""Whether checked drafts give each rule's own text: ``python -m train.draft_equality --dtype float64 --workers 20``."""

from __future__ import annotations

import itertools
import json
import math
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from decoding.comparison.arms import Arm
from models.complaints import shown
from train.outcomes.workload import require_positive
from train.tasks import get

if TYPE_CHECKING:
    from models.denoiser import Denoiser

RULES = "threshold,risk-sum,factor,margin,entropy-bound,learned,sequential"
COUNTS = ("rounds", "sequence_forwards", "drafts", "drafts_true")

_loaded: list[Denoiser] = []  # of a worker process: the model that it has loaded


@dataclass(frozen=True)
class Piece:
    """A rule on some prompts of a task.

    Attributes:
        task, rule: names.
        settings: of the rule.
        start, prompts: which prompts of the task.
        block_length: of the canvas.
        cache: of the decode.
    """

    task: str
    rule: str
    settings: dict[str, Any]
    start: int
    prompts: tuple[str, ...]
    block_length: int
    cache: str


@dataclass(frozen=True)
class Model:
    """What every piece is decoded with."""

    model: str
    head: str
    dtype: str
    device: str | None
    canvases: int
    threads: int


def draft_equality(
    *,
    catalogue: list[Arm],
    task: str = "countdown3,countdown4,lists,multiplication,sudoku,sudoku-hard",
    rules: str = RULES,
    model: str | None = None,
    head: str | None = None,
    block_length: int | None = None,
    use_cache: Literal["none", "prefix", "dual"] = "none",
    canvases: int = 4,
    num_prompts: int = 100,
    slice_size: int = 10,
    workers: int = 1,
    threads: int = 1,
    seconds: float | None = None,
    seed: int = 0,
    dtype: Literal["float64", "float32", "bfloat16"] = "float64",
    device: str | None = "cpu",
    out: Path = Path("checkpoints/runs/draft-equality"),
) -> None:
    """Decode the same prompts with each rule and with its drafts checked exactly, and count the texts that are equal.

    Each rule runs at the first setting of its arm. Pieces of work are kept, so a call that is repeated goes on; the table has what
    is done.

    Args:
        catalogue: arms of the rules, declared in a config.
        task: names, with commas between them.
        rules: arms of the catalogue, with commas between them; all of them checkable.
        model: folder or hub id of the base; default the shipped model.
        head: folder of its scoring head, with a cascade; default the one that ships for the model.
        block_length: of the canvas; default the task's.
        use_cache: of the decode.
        canvases: k of the checked drafts.
        num_prompts: test prompts of a task.
        slice_size: prompts decoded together.
        workers: processes.
        threads: of each.
        seconds: after which no piece is begun.
        seed: of the prompts.
        dtype: of the weights.
        device: where to run.
        out: folder of the pieces and of draft-equality.json.
    """
    numbers = {"canvases": canvases, "num_prompts": num_prompts, "slice_size": slice_size, "workers": workers}
    require_positive(numbers | {"threads": threads, "block_length": block_length})
    tasks = [get(name.strip()).name for name in task.split(",")]
    from train.commands.folders import MODEL, check_model, head_of, or_shipped

    arms = arms_of(catalogue, rules)
    check_model(or_shipped(model, MODEL), "")
    how = Model(or_shipped(model, MODEL), head_of(model, head), dtype, device, canvases, threads)
    from decoding.provenance import environment, write_json
    from models.devices import find_device

    lengths = {name: block_length or get(name).block_length for name in tasks}
    drawn = (pieces_of(name, arms, num_prompts, seed=seed) for name in tasks)
    pieces = [
        replace(
            piece,
            start=start,
            prompts=piece.prompts[start : start + slice_size],
            block_length=lengths[piece.task],
            cache=use_cache,
        )
        for piece in itertools.chain.from_iterable(drawn)
        for start in range(0, len(piece.prompts), slice_size)
    ]
    pieces.sort(key=lambda piece: piece.rule == "sequential")  # it takes the most rounds
    done = run_pieces(pieces, how, out / "pieces", workers=workers, seconds=seconds)
    rows = summed(done)
    named = {"model": model or MODEL, "head": head or f"checkpoints/{Path(how.head).name}"}
    about = {**asdict(how), **named, "num_prompts": num_prompts, "use_cache": use_cache, "block_length": lengths}
    origin = environment(device=find_device(device), seed=seed)
    write_json(out / "draft-equality.json", {"rows": rows, **about, "environment": origin})
    print(table(rows))


def arms_of(catalogue: Sequence[Arm], rules: str) -> list[Arm]:
    """The arms of the rules named.

    Raises:
        ValueError: for a name that the catalogue lacks.
    """
    named = {arm.name: arm for arm in catalogue}
    wanted = [rule.strip() for rule in rules.split(",")]
    for rule in wanted:
        if rule not in named:
            raise ValueError(f"rules must be arms of the catalogue ({', '.join(named)}), got {shown(rule)}")
    return [named[rule] for rule in wanted]


def pieces_of(task: str, arms: Sequence[Arm], num_prompts: int, *, seed: int) -> Iterator[Piece]:
    """Every rule at the first setting of its dial, on all prompts of a task.

    Args:
        task: name.
        arms: of the rules.
        num_prompts: test prompts.
        seed: of the prompts.
    """
    from train.outcomes.jobs import frozen
    from train.tasks.problems import draw

    prompts = tuple(example.prompt for example in draw(get(task), "test", num_prompts, seed=seed))
    for arm in arms:
        cell = frozen(arm, task).cells[0]
        yield Piece(task, cell.policy, cell.policy_settings, 0, prompts, 1, "none")


def run_pieces(
    pieces: Sequence[Piece], how: Model, folder: Path, *, workers: int, seconds: float | None
) -> list[dict[str, Any]]:
    """What every piece found, from files where it ran before.

    Args:
        pieces: in their order.
        how: model and number format.
        folder: of a file for each piece.
        workers: processes.
        seconds: after which none is begun.
    """
    end = math.inf if seconds is None else time.time() + seconds
    files = {folder / f"{piece.task}-{piece.rule}-{piece.start}.json": piece for piece in pieces}
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        running = [pool.submit(run_piece, piece, how, file, end) for file, piece in files.items() if not file.is_file()]
        for one in running:
            one.result()
    return [json.loads(file.read_text(encoding="utf-8")) for file in files if file.is_file()]


def run_piece(piece: Piece, how: Model, file: Path, end: float) -> None:
    """Decode a piece with the rule alone and with checked drafts, and write what came of it.

    Args:
        piece: rule and prompts.
        how: model and number format.
        file: of the result.
        end: time after which it is left out.
    """
    if time.time() > end:
        return
    from decoding.provenance import write_json

    denoiser = load(how)
    drafts = {"rule": piece.rule, "canvases": how.canvases, "mode": "exact"}
    own = {"risk_rule" if name == "rule" else name: value for name, value in piece.settings.items()}
    alone, alone_texts = decoded(denoiser, piece, piece.rule, piece.settings)
    checked, texts = decoded(denoiser, piece, "verified", drafts | own)
    equal = sum(one == other for one, other in zip(texts, alone_texts, strict=True))
    found = {"task": piece.task, "rule": piece.rule, "settings": piece.settings, "prompts": len(texts), "equal": equal}
    write_json(file, {**found, "alone": alone, "checked": checked})


def load(how: Model) -> Denoiser:
    """The model of this process."""
    if not _loaded:
        import torch

        import models

        torch.set_num_threads(how.threads)
        _loaded.append(models.load(how.model, head=how.head, dtype=how.dtype, device=how.device, engine="plain"))
    return _loaded[0]


def decoded(
    denoiser: Denoiser, piece: Piece, policy: str, settings: dict[str, Any]
) -> tuple[dict[str, int], list[list[int]]]:
    """Sums of what a decode counted, and the tokens of every prompt.

    Args:
        denoiser: the model.
        piece: prompts and canvas.
        policy, settings: what decodes.
    """
    from decoding.api import generate

    lengths: dict[str, Any] = {"gen_length": get(piece.task).gen_length, "block_length": piece.block_length}
    made = generate(denoiser, list(piece.prompts), policy, use_cache=piece.cache, **lengths, **settings)
    return {name: int(getattr(made, name).sum()) for name in COUNTS}, made.state.tokens.tolist()


def summed(done: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """A row for each task and rule, with means over its prompts."""
    found = []
    by_rule = sorted(done, key=lambda one: (one["task"], one["rule"]))
    for (task, rule), some in itertools.groupby(by_rule, key=lambda one: (one["task"], one["rule"])):
        own = list(some)
        prompts = sum(one["prompts"] for one in own)
        row = {"task": task, "rule": rule, "settings": own[0]["settings"], "prompts": prompts}
        row["equal"] = sum(one["equal"] for one in own)
        for who in ("alone", "checked"):
            row[who] = {name: sum(one[who][name] for one in own) / prompts for name in COUNTS}
        found.append(row)
    return found


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Lines for people."""
    return "\n".join(
        f"{row['task']:>16} {row['rule']:>13}: {row['equal']} of {row['prompts']} texts equal, "
        f"{row['alone']['rounds']:.2f} rounds alone, {row['checked']['rounds']:.2f} with drafts checked "
        f"({row['checked']['sequence_forwards']:.1f} forwards)"
        for row in rows
    )


if __name__ == "__main__":
    from train.commands.command_line import GOES_ON, run

    run(draft_equality, default_config="configs/compare/equality.yaml", kept=GOES_ON)
