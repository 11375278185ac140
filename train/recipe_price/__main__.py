"""What fitting a head costs at a published shape: ``python -m train.recipe_price --shapes FOLDER,FOLDER --out DIR``.

Weights are random, so only the cost is measured. `torchrun --nproc-per-node 4 -m train.recipe_price` measures it on four GPUs.
"""

from __future__ import annotations

import gc
import json
from pathlib import Path
from typing import Any

from train.commands.command_line import shipped
from train.commands.folders import MODEL
from train.recipe_price.measuring import Sizes, measure

MARK = "<!-- price -->"
TOKENIZER = shipped(MODEL)
STATES = 1_000_000  # rows of examples: the shipped cascade of reason-7m saw 3,552 batches of at most 384
COLUMNS = (
    *("shape", "K", "GPUs", "collection, states an hour", "head, states an hour"),
    *("cascade, steps an hour", "cascade, states an hour", "peak GiB a GPU", "GPU-hours for 1M states"),
)


def recipe_price(
    *,
    shapes: str,
    out: Path,
    page: Path | None = None,
    blocks: tuple[int, ...] = (2, 4, 8),
    prompt: int = 256,
    gen_length: int = 256,
    block_length: int = 32,
    rounds: int = 64,
    batch_size: int = 8,
    steps: int = 12,
    tokenizer: Path = TOKENIZER,
    device: str | None = None,
) -> None:
    """Measure collection, head fit and cascade fit with random weights of a shape, and print and write the table of all runs.

    Of several processes each collects states of its own and leads prompts of its own for the cascade; the states of a head's
    batch are shared out. The figures of one number of GPUs go into a file of `out`, and the table has those of all.

    Args:
        shapes: folders with config.json, with commas between them.
        out: folder of SHAPE-GPUS.json and price.md.
        page: a page whose part between two comments `price` gets the table.
        blocks: K of each cascade.
        prompt: tokens of a prompt.
        gen_length: positions to fill.
        block_length: divides gen_length.
        rounds: of a decode, a multiple of the number of blocks.
        batch_size: prompts in one forward of a process.
        steps: of each fit that is timed.
        tokenizer: folder of a tokenizer that spells digits apart; default the shipped model's.
        device: where to run; by default the GPU if there is one.
    """
    folders = [Path(one.strip()) for one in shapes.split(",")]
    for folder in folders:
        if not (folder / "config.json").is_file():
            raise ValueError(f"shapes must be folders with config.json, got {folder}")
    for name, value in (
        ("prompt", prompt),
        ("batch_size", batch_size),
        ("steps", steps),
        ("block_length", block_length),
    ):
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
    if gen_length % block_length or rounds % (gen_length // block_length):
        raise ValueError(f"rounds must be a multiple of the {gen_length // block_length} blocks, got {rounds}")
    if page is not None and page.read_text(encoding="utf-8").count(MARK) != 2:
        raise ValueError(f"page must hold {MARK} twice, got {page}")

    from decoding.provenance import environment, write_json, write_text
    from models.devices import find_device
    from models.ranks import find_ranks

    where, ranks = find_device(device), find_ranks()
    sizes = Sizes(prompt, gen_length, block_length, rounds, batch_size, steps)
    for folder in folders:
        gc.collect()  # the model before is held by its own references
        figures = measure(folder, sizes, blocks, tokenizer=tokenizer, device=where)
        if ranks.first:
            about = {"shape": folder.name, "gpus": ranks.size, "sizes": vars(sizes), **figures}
            file = out / f"{folder.name}-{ranks.size}.json"
            write_json(file, about | {"environment": environment(device=where, seed=0)})
    if ranks.first:
        text = table([json.loads(file.read_text(encoding="utf-8")) for file in sorted(out.glob("*-*.json"))])
        write_text(out / "price.md", text)
        if page is not None:
            before, _, after = page.read_text(encoding="utf-8").split(MARK)
            write_text(page, f"{before}{MARK}\n{text}{MARK}{after}")
        print(text)


def table(runs: list[dict[str, Any]]) -> str:
    """A line for every shape, K and number of GPUs; GPU-hours are those of as many states as a shipped cascade saw."""
    lines = [f"| {' | '.join(COLUMNS)} |", f"|{' --- |' * len(COLUMNS)}"]
    for run in sorted(runs, key=lambda one: (one["shape"], one["gpus"])):
        for one in run["cascades"]:
            rates = [run["collection"]["states_an_hour"], run["head"]["states_an_hour"]]
            rates += [one["steps_an_hour"], one["states_an_hour"]]
            cells = [run["shape"], str(one["blocks"]), str(run["gpus"]), *(f"{rate:,.0f}" for rate in rates)]
            hours = run["gpus"] * STATES / one["states_an_hour"]
            cells += [f"{one['peak_gib']:.1f}", f"{hours:.1f}"]
            lines.append(f"| {' | '.join(cells)} |")
    devices = ", ".join(sorted({run["environment"]["device"] for run in runs}))
    sizes = runs[0]["sizes"]
    canvas = f"prompts of {sizes['prompt']}, canvas {sizes['gen_length']} in blocks of {sizes['block_length']}"
    how = f"{sizes['rounds']} rounds, {sizes['batch_size']} prompts a GPU, no cache"
    return "\n".join([*lines, "", f"Random weights, {devices}; {canvas}, {how}.", ""])


if __name__ == "__main__":
    from train.commands.command_line import run

    run(recipe_price)
