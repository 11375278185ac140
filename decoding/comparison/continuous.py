"""What a batch that stays full is worth: continuous batching against rows that are always full, and against fixed batches.

`python -m models.profile --continuous` is its command.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import models
from decoding.api import generate
from decoding.calls.answers import Answer
from decoding.calls.many import generate_many
from decoding.provenance import environment, write_json
from models.devices import find_device, now
from models.masked_lm import MaskedLM
from models.profile import random_model

LOG = logging.getLogger(__name__)
BLOCKS = (1, 2, 4, 8)  # of the canvases of the mix, whose rounds differ as much where a round commits one position
EVERY = 64  # of the prompts in order of length, one is decoded in as many copies as there are rows
WARM = 4  # batches before the clock runs
FULL, FIXED = 0.9, 1.3  # shares of the two others that continuous batching should reach


@dataclass(frozen=True)
class Mix:
    """Prompts of mixed length and canvases of mixed length, in an order drawn at random.

    Attributes:
        prompts: token ids.
        lengths: of their canvases.
        block: of all blocks.
    """

    prompts: Sequence[list[int]]
    lengths: Sequence[int]
    block: int

    def at(self, places: Iterable[int]) -> Mix:
        """Some of them."""
        kept = list(places)
        return Mix([self.prompts[n] for n in kept], [self.lengths[n] for n in kept], self.block)


def make_mix(count: int, *, shortest: int, longest: int, block: int, seed: int = 0) -> Mix:
    """A mix of random prompts.

    Args:
        count: prompts.
        shortest, longest: positions of a prompt.
        block: positions of a block.
        seed: of lengths, tokens and order.
    """
    generator = torch.Generator().manual_seed(seed)
    sizes = torch.randint(shortest, longest + 1, (count,), generator=generator).tolist()
    blocks = torch.tensor(BLOCKS).repeat(-(-count // len(BLOCKS)))[:count]
    lengths = (block * blocks[torch.randperm(count, generator=generator)]).tolist()
    return Mix([torch.randint(5, 200, (n,), generator=generator).tolist() for n in sizes], lengths, block)


def continuous(
    *,
    model: str | Path,
    head: str | Path | None = None,
    shape: Path | None = None,
    out: Path | None = None,
    device: str | None = None,
    prompts: int = 512,
    rows: int = 32,
    policy: str = "threshold",
    settings: Mapping[str, Any] | None = None,
    use_cache: str = "dual",
    engine: str = "auto",
) -> dict[str, Any]:
    """Decode one mix in three ways, and say how many tokens a second each makes.

    Args:
        model: a checkpoint folder, where no shape is given.
        head: folder of its scoring head.
        shape: folder with config.json: random weights of that shape.
        out: where continuous.json goes.
        device: cpu or cuda; by default the GPU if there is one.
        prompts: of the mix.
        rows: at a time.
        policy: by its name.
        settings: of the policy; none are its own.
        use_cache: none, prefix or dual.
        engine: auto, plain or graphs.

    Returns:
        What continuous.json holds.
    """
    where = find_device(device)
    if shape is None:
        denoiser = models.load(model, device=where, head=head, engine=engine)
        mix = make_mix(prompts, shortest=4, longest=32, block=8)
    else:
        dtype = torch.bfloat16 if where.type == "cuda" else torch.float32
        denoiser = random_model(shape, where, dtype).use_engine(engine)
        mix = make_mix(prompts, shortest=32, longest=256, block=32)
    options = {**(settings or {}), "policy": policy, "use_cache": use_cache}
    found = measure(denoiser, mix, rows=rows, options=options)
    found |= {"of": str(shape or model), "policy": policy, "settings": dict(settings or {}), "cache": use_cache}
    found |= {"prompts": prompts, "rows": rows}
    found |= {"environment": environment(device=where, seed=0)}
    if out is not None:
        write_json(out / "continuous.json", found)
    return found


def measure(denoiser: MaskedLM, mix: Mix, *, rows: int, options: dict[str, Any]) -> dict[str, Any]:
    """The three ways, each once what it needs has been built.

    Args:
        denoiser: decodes.
        mix: prompts.
        rows: at a time.
        options: policy and cache.
    """
    options = {**options, "block_length": mix.block, "early_stop": False}
    before = denoiser.engine.fallbacks if denoiser.engine else 0

    def stay_full(some: Mix) -> list[Answer]:
        how = {**options, "gen_length": some.lengths, "batch_size": rows, "ordered": False}
        return list(generate_many(denoiser, some.prompts, **how))

    def in_batches(some: Mix) -> list[Answer]:
        firsts = range(0, len(some.prompts), rows)
        parts = [some.at(range(first, min(first + rows, len(some.prompts)))) for first in firsts]
        return [answer for part in parts for answer in stay_full(part)]

    seconds: dict[str, float] = {}
    answers: list[Answer] = []
    for name, way in (("continuous", stay_full), ("fixed", in_batches)):
        way(mix.at(range(min(len(mix.prompts), WARM * rows))))
        seconds[name], answers = clocked(denoiser, lambda way=way: way(mix))  # type: ignore[misc]
        LOG.info("continuous: %s took %.1f s", name, seconds[name])
    tokens = sum(mix.lengths)
    speed = {name: tokens / spent for name, spent in seconds.items()}
    speed |= {"full": full_batches(denoiser, mix, rows, options), "copies": copies(denoiser, mix, rows, options)}
    each = sorted(answer.row.rounds for answer in answers)
    return {
        "tokens_a_second": speed,
        "prompts_a_second": {name: one * len(mix.prompts) / tokens for name, one in speed.items()},
        "of_always_full": speed["continuous"] / speed["full"],
        "of_copies": speed["continuous"] / speed["copies"],
        "of_fixed_batches": speed["continuous"] / speed["fixed"],
        "rounds": {
            "least": each[0],
            "tenth": each[len(each) // 10],
            "ninetieth": each[9 * len(each) // 10],
            "most": each[-1],
        },
        "fallbacks": denoiser.engine.fallbacks - before if denoiser.engine else 0,
    }


def full_batches(denoiser: MaskedLM, mix: Mix, rows: int, options: dict[str, Any]) -> float:
    """Tokens a second of different prompts whose rows never stand empty: what a round of a batch takes, times its rows' rounds.

    A batch of prompts of like length, with canvases of one length, begins full and thins out. Had rows that ended been
    replaced at no cost, it would have taken (its rows' rounds, summed) / rows rounds.

    Args:
        denoiser: decodes.
        mix: of whose prompts one batch is decoded for each length of the canvas.
        rows: of a batch.
        options: of the decode.
    """
    spent, tokens = 0.0, 0
    for length in sorted(set(mix.lengths)):
        places = sorted((n for n, one in enumerate(mix.lengths) if one == length), key=lambda n: len(mix.prompts[n]))
        some = mix.at(places[:rows])

        def decode(some: Mix = some, length: int = length) -> Any:
            return generate(denoiser, some.prompts, gen_length=length, **options)

        decode()
        seconds, made = clocked(denoiser, decode)
        share = len(places) / len(some.prompts)  # of the mix, for each prompt decoded
        spent += share * seconds / made.nfe * float(made.rounds.sum()) / len(some.prompts)
        tokens += length * len(places)
    return tokens / spent


def copies(denoiser: MaskedLM, mix: Mix, rows: int, options: dict[str, Any]) -> float:
    """Tokens a second where all rows are copies of one prompt, which begin, open their blocks and end together.

    Args:
        denoiser: decodes.
        mix: of whose prompts, in order of length, every 64th is decoded.
        rows: copies.
        options: of the decode.
    """
    order = sorted(range(len(mix.prompts)), key=lambda n: (mix.lengths[n], len(mix.prompts[n])))
    some = mix.at(order[min(EVERY, len(order)) // 2 :: EVERY])
    spent = 0.0
    for prompt, length in zip(some.prompts, some.lengths, strict=True):

        def decode(prompt: list[int] = prompt, length: int = length) -> object:
            return generate(denoiser, [prompt] * rows, gen_length=length, **options)

        decode()
        spent += clocked(denoiser, decode)[0]
    return rows * sum(some.lengths) / spent


def clocked(denoiser: MaskedLM, call: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds of a call, the device's work included, and what it gives."""
    began = now(denoiser.device)
    made = call()
    return now(denoiser.device) - began, made


def table(found: dict[str, Any]) -> str:
    """The figures in lines."""
    names = {
        "continuous": f"{found['rows']} rows that stay full",
        "full": f"{found['rows']} rows always full",
        "copies": f"{found['rows']} copies of a prompt (upper bound)",
        "fixed": "fixed batches whose finished rows leave",
    }
    speed, prompts, rounds = found["tokens_a_second"], found["prompts_a_second"], found["rounds"]
    what = f"{found['prompts']} prompts, {found['policy']}, cache {found['cache']}, {found['of']}"
    spread = (
        f"rounds a row: {rounds['least']} to {rounds['most']}, tenth {rounds['tenth']}, ninetieth {rounds['ninetieth']}"
    )
    lines = [f"{what} on {found['environment']['device']}", f"{spread}; engine fallbacks {found['fallbacks']}"]
    lines += [f"{what:45}{speed[name]:11.1f} tokens/s{prompts[name]:10.2f} prompts/s" for name, what in names.items()]
    lines.append(f"continuous / always full {found['of_always_full']:.3f} (bar {FULL})")
    lines.append(f"continuous / fixed batches {found['of_fixed_batches']:.3f} (bar {FIXED})")
    return "\n".join(lines)
