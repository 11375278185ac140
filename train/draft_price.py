"""What checked drafts cost and save: ``python -m train.draft_price --task countdown3,sudoku-hard``."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from models.complaints import shown
from train.outcomes.workload import require_positive

if TYPE_CHECKING:
    from decoding.policy import Policy
    from models.denoiser import Denoiser

THRESHOLDS = {"sudoku": 0.98, "sudoku-hard": 0.995, "countdown3": 0.96, "countdown4": 0.95, "lists": 0.93}
OTHERWISE = 0.95
FEWEST = 8  # prompts
Drafts = tuple[int, str, str, float | None]  # canvases, mode, source, worth
SOURCES = ("cascade", "reading")
MEANS = ("rounds", "sequence_forwards", "looks", "drafts", "drafts_true")


@dataclass(frozen=True)
class Price:
    """A decoder on one batch size.

    Attributes:
        task: whose prompts.
        gen_length, block_length, use_cache: of the decode.
        batch: rows decoded together.
        canvases: k, 1 for the rule alone.
        mode: exact or subset; empty for the rule alone.
        source: what drafts are made from, cascade or reading; empty for the rule alone.
        worth: failed drafts that a true one pays for; None for all drafts in every round.
        engine: plain or graphs.
        prompts: decoded.
        equal: of them, those with the text of the rule alone.
        rounds, sequence_forwards, looks, drafts, drafts_true: means over prompts.
        ms: wall clock a prompt, the best of the repeats.
        fallbacks: decodes and calls of the engine that ran plainly.
    """

    task: str
    gen_length: int
    block_length: int
    use_cache: str
    batch: int
    canvases: int
    mode: str
    source: str
    worth: float | None
    engine: str
    prompts: int
    equal: int
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
    model: str | None = None,
    head: str | None = None,
    threshold: float | None = None,
    canvases: str = "2,4,8",
    batches: str = "1,8,64",
    modes: str = "exact,subset",
    sources: str = "cascade",
    worth: str = "none",
    num_prompts: int = 128,
    decodes: int = 4,
    repeats: int = 3,
    seed: int = 0,
    block_length: int | None = None,
    use_cache: Literal["none", "prefix", "dual"] = "none",
    engine: Literal["plain", "graphs"] = "plain",
    device: str | None = None,
    dtype: Literal["float32", "bfloat16", "float16"] | None = None,
    out: Path | None = None,
) -> None:
    """Time the rule `threshold` and checked drafts around it on the same prompts: rounds, forwards, looks and ms a prompt.

    Args:
        task: names, with commas between them.
        model: folder or hub id of the base; default the shipped model.
        head: folder of its scoring head, with a cascade; default the one that ships, or none for drafts from the reading alone.
        threshold: of the rule; default one for each task near its careful end.
        canvases: k of the checked drafts, with commas between them.
        batches: rows decoded together.
        modes: exact, subset.
        sources: what drafts are made from: cascade, reading.
        worth: of the checked drafts: none, or numbers, with commas between them.
        num_prompts: for each row of the table at most.
        decodes: batches for each row at most, of small batches at least 8 prompts.
        repeats: timed decodes, decoders in turn; the best counts.
        seed: of the prompts.
        block_length: of the canvas; default the task's own.
        use_cache: of keys and values.
        engine: what runs the forwards.
        device: where to run; by default the GPU if there is one.
        dtype: of the weights; default float32 on the CPU, the checkpoint's own elsewhere.
        out: folder for draft-price.json, or none.
    """
    require_positive({"num_prompts": num_prompts, "decodes": decodes, "repeats": repeats, "block_length": block_length})
    sizes, depths = read_numbers("batches", batches), read_numbers("canvases", canvases)
    kinds, origins = read_names("modes", modes, ("exact", "subset")), read_names("sources", sources, SOURCES)
    drafts = list(itertools.product(depths, kinds, origins, read_worths(worth)))
    from train.commands.folders import MODEL, check_model, head_of, or_shipped
    from train.tasks import get
    from train.tasks.problems import draw

    tasks = [get(name.strip()) for name in task.split(",")]
    check_model(or_shipped(model, MODEL), "")
    head = head_of(model, head) if head is not None or "cascade" in origins else None
    model = or_shipped(model, MODEL)

    import models
    from decoding.provenance import dtype_name, environment, write_json

    denoiser = models.load(model, head=head, device=device, dtype=dtype, engine=engine)
    found: list[Price] = []
    for about in tasks:
        prompts = [example.prompt for example in draw(about, "test", num_prompts, seed=seed)]
        c = THRESHOLDS.get(about.name, OTHERWISE) if threshold is None else threshold
        decoders = list(decoders_of(denoiser, c, drafts))
        length = block_length or about.block_length
        canvas = {"gen_length": about.gen_length, "block_length": length, "use_cache": use_cache}
        for size in sizes:
            some = prompts[: max(FEWEST, decodes * size)]
            found += measure(denoiser, decoders, about.name, some, size, canvas=canvas, repeats=repeats)
            print(table(found[-len(decoders) :]), flush=True)
        if out is not None:
            where = environment(device=denoiser.device, seed=seed) | {"dtype": dtype_name(denoiser)}
            write_json(out / "draft-price.json", {"rows": [asdict(row) for row in found], "environment": where})


def read_numbers(name: str, text: str) -> list[int]:
    """Whole numbers from 1, with commas between them.

    Raises:
        ValueError: in one sentence.
    """
    found = [one.strip() for one in text.split(",")]
    if not all(one.isdecimal() and int(one) > 0 for one in found):
        raise ValueError(f"{name} must be whole numbers from 1 with commas between them, got {shown(text)}")
    return [int(one) for one in found]


def read_names(name: str, text: str, known: tuple[str, ...]) -> list[str]:
    """Some of the names known, with commas between them.

    Raises:
        ValueError: for another.
    """
    found = list(dict.fromkeys(one.strip() for one in text.split(",")))
    for one in found:
        if one not in known:
            raise ValueError(f"{name} must be {' or '.join(known)}, got {shown(one)}")
    return found


def read_worths(text: str) -> list[float | None]:
    """Numbers from 0, or none, with commas between them.

    Raises:
        ValueError: in one sentence.
    """
    try:
        return [None if one.strip() == "none" else float(one) for one in text.split(",")]
    except ValueError:
        raise ValueError(f"worth must be none or numbers with commas between them, got {shown(text)}") from None


@dataclass(frozen=True)
class Decoder:
    """A row of the table before it is measured."""

    canvases: int
    mode: str
    source: str
    worth: float | None
    policy: Policy


def decoders_of(denoiser: Denoiser, threshold: float, drafts: list[Drafts]) -> Iterator[Decoder]:
    """The rule alone, and checked drafts around it.

    Args:
        denoiser: with a head that has a cascade, if one of the sources is that.
        threshold: of the rule.
        drafts: k, mode, source and worth of each.
    """
    from decoding.policy_by_name import make_policy

    yield Decoder(1, "", "", None, make_policy("threshold", {"threshold": threshold}, denoiser))
    for k, mode, source, worth in drafts:
        settings: dict[str, Any] = {"rule": "threshold", "threshold": threshold}
        settings |= {"canvases": k, "mode": mode, "source": source}
        settings |= {} if worth is None else {"worth": worth}
        yield Decoder(k, mode, source, worth, make_policy("verified", settings, denoiser))


def measure(
    denoiser: Denoiser,
    decoders: list[Decoder],
    task: str,
    prompts: list[str],
    batch: int,
    *,
    canvas: dict[str, Any],
    repeats: int,
) -> list[Price]:
    """Every decoder on the same prompts, decoders in turn, after one decode that warms them up.

    Args:
        denoiser: the model.
        decoders: the rule alone first.
        task: whose prompts.
        prompts: decoded.
        batch: rows decoded together.
        canvas: lengths of canvas and block, and the cache.
        repeats: timed decodes of each.
    """
    parts = [prompts[start : start + batch] for start in range(0, len(prompts), batch)]
    found: list[Price | None] = [None] * len(decoders)
    texts: list[str] = []
    for turn in range(repeats + 1):
        for index, decoder in enumerate(decoders):
            some = parts[: max(1, len(parts) // 4)] if turn == 0 else parts
            price, own = timed(denoiser, decoder, task, some, canvas)
            if turn == 0:
                continue
            texts = own if index == 0 else texts
            price = replace(price, equal=sum(one == other for one, other in zip(own, texts, strict=True)))
            last = found[index]
            found[index] = price if last is None or price.ms < last.ms else last
    return [price for price in found if price is not None]


def timed(
    denoiser: Denoiser, decoder: Decoder, task: str, parts: list[list[str]], canvas: dict[str, Any]
) -> tuple[Price, list[str]]:
    """One decode of all parts, and the texts.

    Args:
        denoiser, decoder, task, canvas: as in `measure`.
        parts: prompts of each batch.
    """
    from decoding.api import generate

    engine = denoiser.engine
    before = 0 if engine is None else engine.fallbacks
    made = [generate(denoiser, part, decoder.policy, **canvas) for part in parts]
    count = sum(map(len, parts))
    price = Price(
        task=task,
        batch=len(parts[0]),
        canvases=decoder.canvases,
        mode=decoder.mode,
        source=decoder.source,
        worth=decoder.worth,
        engine="plain" if engine is None else "graphs",
        prompts=count,
        equal=count,
        **canvas | {name: sum(int(getattr(one, name).sum()) for one in made) / count for name in MEANS},
        ms=1000 * sum(one.seconds for one in made) / count,
        fallbacks=0 if engine is None else engine.fallbacks - before,
    )
    return price, [text for one in made for text in one.text]


def table(rows: list[Price]) -> str:
    """Lines for people, each decoder's time beside that of the rule alone."""
    lines, alone = [], rows[0]
    for row in rows:
        name = f"{row.mode}, {row.source}" if row.mode else "rule alone"
        worth = "" if row.worth is None else f" worth {row.worth:g}"
        true = row.drafts_true / row.drafts if row.drafts else 0.0
        lines.append(
            f"{row.task:>16} batch {row.batch:>3} k {row.canvases} {name:>15}{worth} {row.engine}: "
            f"{row.rounds:6.2f} rounds ({row.rounds / alone.rounds:.2f}) "
            f"{row.sequence_forwards:7.2f} forwards ({row.sequence_forwards / alone.sequence_forwards:.2f}) "
            f"{row.looks:6.2f} looks, {true:.2f} of {row.drafts:.1f} drafts true, {row.equal} of {row.prompts} texts equal, "
            f"{row.ms:8.2f} ms ({row.ms / alone.ms:.2f})"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    from train.commands.command_line import run

    run(draft_price)
