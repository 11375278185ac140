"""What a scoring head costs a round: ``python -m train.head_cost --head checkpoints/reason-7m-head``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, final

from decoding.policies.threshold import Threshold
from decoding.policy import Needs, Policy
from decoding.reading import Reading
from decoding.state import DecodeState, Proposal

if TYPE_CHECKING:
    from models.denoiser import Denoiser


@final
@dataclass(frozen=True)
class Beside(Policy):
    """A policy's commits, while another is asked as well and not obeyed: the same states with and without its work.

    Args:
        leads: whose proposals are committed.
        consulted: what is timed on top.
    """

    leads: Policy
    consulted: Policy

    @property
    def needs(self) -> Needs:
        """Base blocks that the policy asked reads."""
        return Needs(taps=self.consulted.needs.taps)

    def propose(self, state: DecodeState, reading: Reading) -> Proposal:
        """Ask, and follow the other."""
        self.consulted.propose(state, reading)
        return self.leads.propose(state, reading)


def head_cost(
    *,
    model: str | None = None,
    head: str | None = None,
    task: str = "sudoku",
    threshold: float = 0.9,
    batch_size: int = 8,
    repeats: int = 7,
    seed: int = 0,
    device: str | None = None,
    dtype: Literal["float32", "bfloat16", "float16"] | None = None,
    shape: Path | None = None,
    out: Path | None = None,
) -> None:
    """Time a round with and without a head on the same states, and count what heads add at the 8B shape.

    Args:
        model: folder or hub id of the base; default the shipped model.
        head: folder of its scoring head; default the one that ships for the model.
        task: whose test prompts are decoded.
        threshold: of the headless policy that leads through the states.
        batch_size: prompts decoded together.
        repeats: decodes of each kind, in turns; medians are reported.
        seed: of the prompts.
        device: where to run; by default the GPU if there is one.
        dtype: of the base; default float32 on the CPU, the checkpoint's own elsewhere.
        shape: folder with the config.json whose shape is counted; by default LLaDA-8B's.
        out: folder for head-cost.json, or none.
    """
    for name, value in (("batch_size", batch_size), ("repeats", repeats)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
    import models
    from decoding.features import NAMES
    from decoding.provenance import environment, write_json
    from models.checkpoints.json_files import read_object
    from train.commands.folders import MODEL, head_of, or_shipped
    from train.head.operations import LLADA_8B, shape_of, table
    from train.tasks import get

    about = get(task)
    counted = LLADA_8B if shape is None else shape_of(read_object(shape / "config.json"))
    denoiser = models.load(or_shipped(model, MODEL), device=device, dtype=dtype, head=head_of(model, head))
    timed = measure(denoiser, task, threshold=threshold, batch_size=batch_size, repeats=repeats, seed=seed)
    sizes: dict[str, int] = {"prompt": 128, "gen_length": 256, "block_length": 32}
    counts = {**sizes, "heads": table(counted, NAMES, **sizes)}
    figures = {"task": about.name, "batch_size": batch_size, "repeats": repeats, "measured": timed, "counted": counts}
    print(report(figures))
    if out is not None:
        write_json(out / "head-cost.json", figures | {"environment": environment(device=denoiser.device, seed=seed)})


def measure(
    denoiser: Denoiser, task: str, *, threshold: float, batch_size: int, repeats: int, seed: int
) -> dict[str, dict[str, float]]:
    """Milliseconds of a round with and without the denoiser's head, for each cache; medians over repeats in turns.

    Both decode the same prompts through the same states, led by `threshold`; beside it a rule is asked and not obeyed: `threshold`
    once more, or the head with `learned`. The difference is that between the two decoders.

    Args:
        denoiser: the base with its head.
        task: of the prompts.
        threshold: of the rule that leads, in (0, 1].
        batch_size: prompts in one decode.
        repeats: timed decodes of each.
        seed: of the prompts.
    """
    from functools import partial
    from itertools import islice
    from statistics import median

    from decoding import generate
    from decoding.policy_by_name import make_policy
    from train.tasks import get

    about = get(task)
    prompts = [example.prompt for example in islice(about.generate("test", seed=seed), batch_size)]
    leads = Threshold(threshold)
    rules = {"headless": Beside(leads, leads), "with_head": Beside(leads, make_policy("learned", {}, denoiser))}
    gen_length, block_length = about.gen_length, about.block_length
    seconds: dict[str, dict[str, float]] = {}
    for cache in ("none", "dual") if hasattr(denoiser, "with_cache") else ("none",):
        times: dict[str, list[float]] = {name: [] for name in rules}
        for turn in range(repeats + 1):  # the first warms up
            for name in list(rules) if turn % 2 else list(rules)[::-1]:
                decode = partial(generate, denoiser, prompts, rules[name], use_cache=cache)
                made = decode(gen_length=gen_length, block_length=block_length)
                times[name].append(1e3 * made.seconds / made.nfe)
        headless, with_head = (times[name][1:] for name in rules)
        shares = [100 * (more / less - 1) for more, less in zip(with_head, headless, strict=True)]
        figures = {"headless_ms": median(headless), "with_head_ms": median(with_head)}
        seconds[cache] = figures | {"added_percent": median(shares), "rounds": float(made.nfe)}
    return seconds


def report(figures: dict[str, Any]) -> str:
    """The figures as lines of text."""
    lines = [
        f"{figures['task']}, cache {cache}: {one['headless_ms']:.2f} ms a round, {one['with_head_ms']:.2f} with the head, "
        f"{one['added_percent']:+.1f} % (median of {figures['repeats']})"
        for cache, one in figures["measured"].items()
    ]
    lines.append(
        "by count, a block of masks in one canvas: GFLOP and MB of weights added; per cent of a round's, cached / uncached"
    )
    for row in figures["counted"]["heads"]:
        shares = "; ".join(
            f"{name.replace('_', ' ')} {row['cached'][name]:.2f} / {row['uncached'][name]:.2f} %"
            for name in ("operations", "weight_bytes")
        )
        lines.append(
            f"{row['head']}: {row['operations'] / 1e9:.2f} GFLOP, {row['weight_bytes'] / 1e6:.1f} MB; {shares}"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    from train.commands.command_line import run

    run(head_cost)
