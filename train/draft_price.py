"""What checked drafts cost and save: ``python -m train.draft_price --task countdown3,sudoku-hard``."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from decoding.policy import Policy
    from models.denoiser import Denoiser

THRESHOLDS = {"sudoku": 0.98, "sudoku-hard": 0.995, "countdown3": 0.96, "countdown4": 0.95, "lists": 0.93}
OTHERWISE = 0.95
FEWEST = 8  # prompts


@dataclass(frozen=True)
class Price:
    """A decoder on one batch size.

    Attributes:
        task: whose prompts.
        batch: rows decoded together.
        canvases: k, 1 for the rule alone.
        mode: exact or subset; empty for the rule alone.
        engine: plain or graphs.
        prompts: decoded.
        rounds, sequence_forwards, looks, drafts, drafts_true: means over prompts.
        ms: wall clock a prompt, the best of the repeats.
        fallbacks: decodes and calls of the engine that ran plainly.
    """

    task: str
    batch: int
    canvases: int
    mode: str
    engine: str
    prompts: int
    rounds: float
    sequence_forwards: float
    looks: float
    drafts: float
    drafts_true: float
    ms: float
    fallbacks: int


def draft_price(
    *,
    task: str = "countdown3,countdown4,sudoku-hard",
    model: str = "checkpoints/reason-7m",
    head: str = "checkpoints/reason-7m-head",
    threshold: float | None = None,
    canvases: str = "2,4,8",
    batches: str = "1,8,64",
    modes: str = "exact,subset",
    num_prompts: int = 128,
    decodes: int = 4,
    repeats: int = 3,
    seed: int = 0,
    engine: Literal["plain", "graphs"] = "plain",
    device: str | None = None,
    out: Path | None = None,
) -> None:
    """Time the rule `threshold` and checked drafts around it on the same prompts: rounds, forwards, looks and ms a prompt.

    Args:
        task: names, with commas between them.
        model: folder or hub id of the base.
        head: folder of its scoring head, with a cascade.
        threshold: of the rule; default one for each task near its careful end.
        canvases: k of the checked drafts, with commas between them.
        batches: rows decoded together.
        modes: exact, subset.
        num_prompts: for each row of the table at most.
        decodes: batches for each row at most, of small batches at least 8 prompts.
        repeats: timed decodes, decoders in turn; the best counts.
        seed: of the prompts.
        engine: what runs the forwards.
        device: where to run; by default the GPU if there is one.
        out: folder for draft-price.json, or none.
    """
    for name, value in (("num_prompts", num_prompts), ("decodes", decodes), ("repeats", repeats)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
    sizes, depths = read_numbers("batches", batches), read_numbers("canvases", canvases)
    kinds = [mode.strip() for mode in modes.split(",")]
    for kind in kinds:
        if kind not in ("exact", "subset"):
            raise ValueError(f"modes must be exact or subset, got {kind!r}")
    from train.commands.compare import draw
    from train.commands.folders import check_head_folder, check_model
    from train.tasks import get

    tasks = [get(name.strip()) for name in task.split(",")]
    check_model(model, "")
    check_head_folder(head)

    import models
    from decoding.provenance import environment, write_json

    denoiser = models.load(model, head=head, device=device, engine=engine)
    found: list[Price] = []
    for about in tasks:
        prompts = [example.prompt for example in draw(about, "test", num_prompts, seed=seed)]
        value = THRESHOLDS.get(about.name, OTHERWISE) if threshold is None else threshold
        decoders = list(decoders_of(denoiser, value, depths, kinds))
        for size in sizes:
            some = prompts[: max(FEWEST, decodes * size)]
            lengths = (about.gen_length, about.block_length)
            found += measure(denoiser, decoders, about.name, some, size, lengths=lengths, repeats=repeats)
            print(table(found[-len(decoders) :]), flush=True)
        if out is not None:
            where = environment(device=denoiser.device, seed=seed)
            write_json(out / "draft-price.json", {"rows": [asdict(row) for row in found], "environment": where})


def read_numbers(name: str, text: str) -> list[int]:
    """Whole numbers from 1, with commas between them.

    Raises:
        ValueError: in one sentence.
    """
    found = [one.strip() for one in text.split(",")]
    if not all(one.isdecimal() and int(one) > 0 for one in found):
        raise ValueError(f"{name} must be whole numbers from 1 with commas between them, got {text!r}")
    return [int(one) for one in found]


def decoders_of(
    denoiser: Denoiser, threshold: float, depths: list[int], modes: list[str]
) -> Iterator[tuple[int, str, Policy]]:
    """The rule alone, and checked drafts around it: (k, mode, policy)."""
    from decoding.policy_by_name import make_policy

    yield 1, "", make_policy("threshold", {"threshold": threshold}, denoiser)
    for k in depths:
        for mode in modes:
            settings: dict[str, Any] = {"rule": "threshold", "threshold": threshold, "canvases": k, "mode": mode}
            yield k, mode, make_policy("verified", settings, denoiser)


def measure(
    denoiser: Denoiser,
    decoders: list[tuple[int, str, Policy]],
    task: str,
    prompts: list[str],
    batch: int,
    *,
    lengths: tuple[int, int],
    repeats: int,
) -> list[Price]:
    """Every decoder on the same prompts, decoders in turn, after one decode that warms them up.

    Args:
        denoiser: the model.
        decoders: k, mode and policy of each.
        task: whose prompts.
        prompts: decoded.
        batch: rows decoded together.
        lengths: of canvas and block.
        repeats: timed decodes of each.
    """
    from decoding.api import generate

    parts = [prompts[start : start + batch] for start in range(0, len(prompts), batch)]
    best, figures = [float("inf")] * len(decoders), [{} for _ in decoders]  # type: list[float], list[dict[str, float]]
    engine = denoiser.engine
    failed = [0] * len(decoders)
    for turn in range(repeats + 1):
        for index, (_, _, policy) in enumerate(decoders):
            before = 0 if engine is None else engine.fallbacks
            some = parts[: max(1, len(parts) // 4)] if turn == 0 else parts
            made = [generate(denoiser, part, policy, gen_length=lengths[0], block_length=lengths[1]) for part in some]
            failed[index] = (0 if engine is None else engine.fallbacks) - before
            if turn:
                best[index] = min(best[index], sum(one.seconds for one in made))
                figures[index] = {
                    name: sum(int(getattr(one, name).sum()) for one in made) / len(prompts)
                    for name in ("rounds", "sequence_forwards", "looks", "drafts", "drafts_true")
                }
    kind = "plain" if engine is None else "graphs"
    return [
        Price(
            task,
            batch,
            k,
            mode,
            kind,
            len(prompts),
            **figures[i],
            ms=1000 * best[i] / len(prompts),
            fallbacks=failed[i],
        )
        for i, (k, mode, _) in enumerate(decoders)
    ]


def table(rows: list[Price]) -> str:
    """Lines for people, each decoder's time beside that of the rule alone."""
    lines = []
    for row in rows:
        alone = rows[0].ms
        name = row.mode or "rule alone"
        lines.append(
            f"{row.task:>16} batch {row.batch:>3} k {row.canvases} {name:>10} {row.engine}: {row.rounds:6.2f} rounds "
            f"{row.sequence_forwards:7.2f} forwards {row.looks:6.2f} looks {row.ms:8.2f} ms ({row.ms / alone:.2f})"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    from train.commands.command_line import run

    run(draft_price)
