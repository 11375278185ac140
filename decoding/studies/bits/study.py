"""Bits against rounds under the factor rule: Fig. 4 and theorem 3.2 of arXiv 2511.21103, on every round of every sequence.

A sequence is decoded without early stop, so that every token of the canvas is predicted. -log p(x) is the exact any-order
chain along the decoded order, left to right within a round (`decoding.studies.chain_rule`). The bound is taken over what the
exploitation rounds revealed; forced commits, which the theorem does not cover, are counted apart.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor

from decoding.api import generate
from decoding.comparison.curves import Array, ratio_of_means, resample
from decoding.comparison.results import Row, estimate
from decoding.comparison.statistics import bits_to_rounds, exploit_bound
from decoding.generation import Generation
from decoding.policies.bounds import Factor
from decoding.policies.ete import BeamETE
from decoding.prompts import Prompts, read_prompts
from decoding.studies.bits.picture import draw
from decoding.studies.chain_rule import by_round, decoded_order, joint_bound, token_nats
from decoding.studies.inputs import StudyInputs
from models.denoiser import Denoiser
from models.toys.block_hmm import BlockHMM, BlockHMMConfig
from models.toys.toy import GroupDenoiser

__all__ = ["draw", "measure"]

TOLERANCE = 1e-3  # nats of rounding in a sum of float32 logarithms
TASKS = ("sudoku", "sudoku-hard", "countdown3", "countdown4", "multiplication", "lists", "words")


@dataclass(frozen=True)
class Followed:
    """One decoded sequence: nats, rounds, and how often a bound was broken.

    Attributes:
        nll: -log p(x) of the whole canvas in nats.
        epsilon: nll minus the path sum of -log c.
        exploit_rounds, forced_rounds: rounds in which the rule accepted something, and the others.
        exploit_nll, exploit_epsilon: of the exploitation rounds alone.
        bound: rounds that theorem 3.2 asks of the exploitation rounds, the larger of its two terms, n the canvas.
        bound_block: the same with n the block length, the largest round there can be when blocks open one by one.
        broken: the sequence needed fewer exploitation rounds than `bound`.
        rounds_broken: rounds that revealed more than log((m + 1) / ((1 - f) m + 1)).
        rounds_off: rounds that broke the inequality of the parts, which holds for any model.
    """

    nll: float
    epsilon: float
    exploit_rounds: float
    forced_rounds: float
    exploit_nll: float
    exploit_epsilon: float
    bound: float
    bound_block: float
    broken: bool
    rounds_broken: float
    rounds_off: float


def measure(
    inputs: StudyInputs,
    *,
    tasks: tuple[str, ...] = TASKS,
    prompts: int = 4,
    factors: tuple[float, ...] = (0.25, 1.0),
    batch_size: int = 64,
    exact_sequences: int = 48,
) -> dict[str, Any]:
    """Decode prompts of every task by the factor rule and compare bits, rounds and the bound.

    Args:
        inputs: base, prompts, device and seed, from the command.
        tasks: names of tasks.
        prompts: test prompts of each task.
        factors: f, each in (0, 1].
        batch_size: canvases in one forward.
        exact_sequences: sequences drawn from the exact Block-HMM for each factor; 0 leaves it out.
    """
    denoiser = inputs.denoiser()
    rows, sequences = [], []
    for factor in factors:
        pooled: list[Followed] = []
        for task in tasks:
            problems = inputs.problems(task, prompts).problems
            lengths: dict[str, Any] = {"gen_length": problems.gen_length, "block_length": problems.block_length}
            encoded = read_prompts(list(problems.split("test")), None, denoiser).to(denoiser.device)
            generations = list(decode(denoiser, encoded, factor, batch_size, **lengths))
            rows.append({"task": task, "factor": factor, **summarise(generations, inputs.seed)})
            sequences += [{"task": task, "factor": factor, **asdict(one)} for one in generations]
            pooled += generations
        if len(tasks) > 1:
            rows.append({"task": "all", "factor": factor, **summarise(pooled, inputs.seed)})
    cut = [f"{prompts} prompts a task and {len(factors)} factors; the full config takes 200 and five"]
    return {
        "within_a_round": "left to right",
        "rows": rows,
        "sequences": sequences,
        "exact": exact_rows(inputs, factors, exact_sequences, batch_size),
        "escape": escape(),
        "cut": cut if prompts < 200 else [],
    }


def decode(
    denoiser: Denoiser,
    prompts: Prompts,
    factor: float,
    batch_size: int,
    *,
    gen_length: int,
    block_length: int,
    temperature: float = 0.0,
    generator: torch.Generator | None = None,
) -> Iterator[Followed]:
    """Decode prompts by the factor rule without early stop and follow the chain of each.

    Args:
        denoiser, prompts: the model, and what it goes on from.
        factor, batch_size: f of the factor rule, above 0; prompts in one decode.
        gen_length, block_length, temperature, generator: as `decoding.generate` has them.
    """
    for few in torch.split(torch.arange(len(prompts.tokens)), batch_size):
        mask = None if prompts.attention_mask is None else prompts.attention_mask[few]
        made = generate(
            denoiser,
            prompts.tokens[few],
            Factor(factor),
            gen_length=gen_length,
            block_length=block_length,
            attention_mask=mask,
            temperature=temperature,
            generator=generator,
            early_stop=False,
        )
        yield from follow(denoiser, made, mask, factor, batch_size, block_length=block_length)


def follow(
    denoiser: Denoiser,
    made: Generation,
    attention_mask: Bool[Tensor, "B P"] | None,
    factor: float,
    batch_size: int,
    *,
    block_length: int,
) -> Iterator[Followed]:
    """The chain of every row of a decode, round by round, beside the bound.

    Args:
        denoiser, made: the model that decoded, and the decode.
        attention_mask: of the prompts, None without padding.
        factor, batch_size, block_length: f and block length of the decode; canvases in one forward.
    """
    canvas = made.canvas.shape[1]
    whole = None if attention_mask is None else torch.nn.functional.pad(attention_mask, (0, canvas), value=True)
    order = decoded_order(made.state)
    joint = token_nats(denoiser, made.sequences, order, attention_mask=whole, batch_size=batch_size)
    rounds = by_round(made.state, joint)
    epsilon = rounds.joint - rounds.path
    broken = rounds.exploit & (rounds.joint > joint_bound(rounds.size, factor) + TOLERANCE)
    parts = exploit_bound(rounds.size, factor)
    off = rounds.exploit & ((rounds.path > parts + TOLERANCE) | (parts > factor + TOLERANCE))
    columns = {
        "nll": rounds.joint.sum(-1),
        "epsilon": epsilon.sum(-1),
        "exploit_rounds": rounds.exploit.sum(-1),
        "forced_rounds": ((rounds.size > 0) & ~rounds.exploit).sum(-1),
        "exploit_nll": rounds.total(rounds.joint),
        "exploit_epsilon": rounds.total(epsilon),
        "rounds_broken": broken.sum(-1),
        "rounds_off": off.sum(-1),
    }
    for values in torch.stack([column.double() for column in columns.values()], -1).tolist():
        row = dict(zip(columns, values, strict=True))
        nats = {"epsilon": row["exploit_epsilon"], "factor": factor}
        bound = bits_to_rounds(row["exploit_nll"], n=canvas, **nats)
        tighter = bits_to_rounds(row["exploit_nll"], n=block_length, **nats)
        largest = max(bound.joint, bound.parts)
        yield Followed(
            **row,
            bound=largest,
            bound_block=max(tighter.joint, tighter.parts),
            broken=largest > row["exploit_rounds"] * (1 + TOLERANCE) + TOLERANCE,
        )


def summarise(sequences: Sequence[Followed], seed: int) -> Row:
    """Means, shares, correlation and slope over sequences, each with its interval."""
    weights = resample(len(sequences), seed=seed)
    table: dict[str, Array] = {
        name: np.array([float(getattr(one, name)) for one in sequences]) for name in asdict(sequences[0])
    }
    bits = table["nll"] / math.log(2)
    rounds = table["exploit_rounds"]

    def share(above: str, below: Array) -> Row | None:
        return estimate(ratio_of_means(weights, table[above], below))

    return {
        "n": len(sequences),
        "bits": estimate(weights @ bits),
        "epsilon_nats": estimate(weights @ table["epsilon"]),
        "epsilon_of_nll": share("epsilon", table["nll"]),
        "exploit_rounds": estimate(weights @ rounds),
        "forced_rounds": estimate(weights @ table["forced_rounds"]),
        "forced_share": share("forced_rounds", rounds + table["forced_rounds"]),
        "bound": estimate(weights @ table["bound"]),
        "tightness": share("bound", rounds),
        "tightness_block": share("bound_block", rounds),
        "rounds_broken": share("rounds_broken", rounds),
        "rounds_off": int(table["rounds_off"].sum()),
        "sequences_broken": estimate(weights @ table["broken"]),
        "pearson": estimate(pearson(weights, bits, rounds)),
        "slope": estimate(slope(weights, bits, rounds)),
    }


def exact_rows(inputs: StudyInputs, factors: Sequence[float], count: int, batch_size: int) -> list[Row]:
    """The same on the exact Block-HMM, whose conditionals are those of one joint distribution: no bound may break.

    Args:
        inputs, factors: of the study; values of f.
        count, batch_size: sequences of each, and in one decode.
    """
    if not count:
        return []
    config = BlockHMMConfig(blocks=4, rho=(0.98, 0.02), eta=0.01)
    denoiser = inputs.counted(BlockHMM(config))
    rows = []
    for factor in factors:
        generator = inputs.generator(offset=round(1000 * factor))
        blank = Prompts(torch.zeros(count, 1, dtype=torch.long), None)
        options: dict[str, Any] = {"gen_length": config.length, "block_length": config.size}
        options |= {"temperature": 1.0, "generator": generator}
        generations = list(decode(denoiser, blank, factor, batch_size, **options))
        rows.append({"task": "block-hmm", "factor": factor, **summarise(generations, inputs.seed)})
    return rows


def escape() -> Row:
    """The paper's toy, four groups of eight equal bits: exploration needs fewer rounds than the bound of exploitation."""
    model, prompt = GroupDenoiser(4, 8), torch.zeros(1, 1, dtype=torch.long)
    ete = BeamETE(gamma=0.0, initial_blocks=4)
    explored, exploited = (generate(model, prompt, p, gen_length=32, block_length=8) for p in (ete, Factor(1.0)))
    nll = float(token_nats(model, explored.sequences, decoded_order(explored.state)).sum())
    bound = bits_to_rounds(nll, n=32, factor=1.0)
    return {"nll": nll, "bound": bound.rounds, "exploit": int(exploited.rounds[0]), "explore": int(explored.rounds[0])}


def covariance(weights: Array, x: Array, y: Array) -> Array:
    """Weighted covariance in every resample [R]; the lines of `weights` sum to 1."""
    x, y = x - x.mean(), y - y.mean()  # keeps the differences exact where a column does not vary
    moment: Array = weights @ (x * y) - (weights @ x) * (weights @ y)
    return moment


def pearson(weights: Array, x: Array, y: Array) -> Array:
    """Pearson's r in every resample [R]: cov(x, y) / sqrt(var x var y); NaN where one of them does not vary."""
    below = np.sqrt(np.maximum(covariance(weights, x, x), 0) * np.maximum(covariance(weights, y, y), 0))
    return _ratio(covariance(weights, x, y), below)


def slope(weights: Array, x: Array, y: Array) -> Array:
    """Least-squares slope of y on x in every resample [R]: cov(x, y) / var x; NaN where x does not vary."""
    return _ratio(covariance(weights, x, y), covariance(weights, x, x))


def _ratio(above: Array, below: Array) -> Array:
    return np.divide(above, below, out=np.full_like(below, np.nan), where=below > 1e-12)
