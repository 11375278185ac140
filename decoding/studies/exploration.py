"""Quality against exploration (arXiv 2604.00375): pass@k, diversity and the model's own likelihood, by how tokens are drawn."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from decoding.api import generate
from decoding.comparison.curves import Array, resample
from decoding.comparison.problems import CheckedProblems
from decoding.comparison.results import estimate
from decoding.comparison.statistics import is_predicted
from decoding.policies.imh import HeadFuture, IndependentMH, mean_field_future
from decoding.policies.learned import Learned
from decoding.policies.quota import Sequential
from decoding.policy import Policy
from decoding.reading import Reading
from decoding.state import DecodeState
from decoding.studies.inputs import StudyInputs
from decoding.studies.picture import head, ticks, whiskers
from decoding.studies.tempered import distance, exact_future, law, sampled, tempered
from models.denoiser import Denoiser
from models.toys.toy import JointDenoiser

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def measure(
    inputs: StudyInputs,
    *,
    prompts: dict[str, int] | None = None,
    samples: int = 16,
    temperature: float = 0.5,
    proposals: int = 4,
    risk_bound: float = 0.02,
    toy_rows: int = 4000,
    batch_size: int = 64,
) -> dict[str, Any]:
    """Draw many answers to each prompt with every rule, at one local temperature.

    Args:
        inputs: base, prompts, device and seed, from the command.
        prompts: task -> test prompts; default 4 of countdown4.
        samples: answers to each prompt, n of pass@k.
        temperature: T of every draw; the chain's target is p^(1/T).
        proposals: canvases of a round of the chain.
        risk_bound: of the learned head.
        toy_rows: decodes of the exhaustive 3-token, 3-position models.
        batch_size: canvases' owners in one forward.
    """
    prompts = {"countdown4": 4} if prompts is None else prompts
    denoiser = inputs.denoiser(head=inputs.head is not None)
    rows = []
    for task, count in prompts.items():
        checked = inputs.problems(task, count)
        for name, (policy, heat) in rules(denoiser, temperature, proposals, risk_bound).items():
            drawn = answers(inputs, denoiser, checked, policy, heat, samples, batch_size)
            rows.append({"task": task, "rule": name, **figures(drawn, samples, seed=inputs.seed)})
    return {
        "rules": rows,
        "cap": {f"{d:g}, V={v}": entropy_cap(d, v) for d, v in ((0.1, 126464), (0.01, 126464), (0.1, 4))},
        "toy": [toy(seed, 1 / temperature, toy_rows, inputs) for seed in range(4)],
        "cut": [
            f"pass@k to k = {samples} on {', '.join(f'{n} prompts of {t}' for t, n in prompts.items())}; "
            "the full sizes have 64 samples and hard Sudoku"
        ],
    }


Rules = dict[str, tuple[Policy, float]]


def rules(denoiser: Denoiser, temperature: float, proposals: int, risk_bound: float) -> Rules:
    """Name -> policy and the temperature of its candidates; the chain draws from p^(1/T) itself.

    Args:
        denoiser: with the scoring head, or without.
        temperature: T, above 0.
        proposals: of a chain, at least 1.
        risk_bound: of the learned head, in (0, 1].
    """
    alpha = 1 / temperature
    policies: Rules = {
        "random remasking": (Sequential(order="random"), temperature),
        "low-confidence remasking": (Sequential(), temperature),  # sample all positions, commit the surest sample
        "surest position, then draw": (IndependentMH(alpha, proposals=1), 0.0),
        f"IMH, {proposals} proposals": (IndependentMH(alpha, proposals=proposals), 0.0),
        f"IMH, random position, {proposals} proposals": (
            IndependentMH(alpha, proposals=proposals, order="random"),
            0.0,
        ),
    }
    if denoiser.head is not None:
        ahead = HeadFuture(denoiser.head)
        policies[f"IMH, head's future, {proposals} proposals"] = (IndependentMH(alpha, proposals, future=ahead), 0.0)
        policies["learned head, many a round"] = (Learned(denoiser.head, risk_bound=risk_bound), temperature)
    return policies


@dataclass(frozen=True)
class Answer:
    """One text drawn.

    Attributes:
        prompt: its number.
        text: up to the first EOS.
        right: says the checker.
        log_c: mean log-probability of its tokens when they were committed, at temperature 1: the model's own likelihood.
        cap: nats that its draws can have had at most, sum_i h(d_i) + d_i log(V - 1) with d_i = 1 - max p_i.
        rounds, sequence_forwards: what it cost.
    """

    prompt: int
    text: str
    right: bool
    log_c: float
    cap: float
    rounds: int
    sequence_forwards: int


def answers(
    inputs: StudyInputs,
    denoiser: Denoiser,
    checked: CheckedProblems,
    policy: Policy,
    heat: float,
    samples: int,
    batch_size: int,
) -> list[Answer]:
    """`samples` answers to every prompt, the prompts in turn.

    Args:
        inputs: of the study.
        denoiser: the model.
        checked: prompts and checker.
        policy: what decides.
        heat: temperature of the candidates, at least 0.
        samples: answers to each prompt.
        batch_size: canvases in one decode.
    """
    problems, drawn = checked.problems, []
    jobs = [number for number in range(len(problems.test)) for _ in range(samples)]
    generator = inputs.generator(denoiser.device)
    for low in range(0, len(jobs), batch_size):
        few = jobs[low : low + batch_size]
        tops: list[Tensor] = []
        made = generate(
            denoiser,
            [problems.test[number] for number in few],
            policy,
            gen_length=problems.gen_length,
            block_length=problems.block_length,
            temperature=heat,
            generator=generator,
            on_step=keep_tops(tops),
        )
        predicted = is_predicted(made.state)
        delta = 1 - torch.stack(tops).gather(0, (made.state.committed_round - 1).clamp(min=0).unsqueeze(0)).squeeze(0)
        cap = (entropy_caps(delta.double(), denoiser.vocab_size) * predicted).sum(-1)
        log_c = (made.state.committed_confidence.clamp(min=1e-30).log() * predicted).sum(-1) / predicted.sum(-1)
        for row, (number, text) in enumerate(zip(few, made.text, strict=True)):
            right = checked.check(problems.test[number], text)
            cost = int(made.rounds[row]), int(made.sequence_forwards[row])
            drawn.append(Answer(number, text, right, float(log_c[row]), float(cap[row]), *cost))
    return drawn


def keep_tops(tops: list[Tensor]) -> Callable[[DecodeState, Reading], None]:
    """A hook that keeps max p of every position in every round."""
    return lambda state, reading: tops.append(reading.top_log_probs[..., 0].exp())


def entropy_caps(delta: Float[Tensor, "B L"], vocabulary: int) -> Float[Tensor, "B L"]:
    """H <= h(d) + d log(V - 1) nats for a position whose most likely token has 1 - d."""
    d = delta.clamp(0, 1)
    bits: Tensor = torch.special.entr(d) + torch.special.entr(1 - d)
    return bits + d * math.log(vocabulary - 1)


def entropy_cap(delta: float, vocabulary: int) -> float:
    """The same for one position."""
    return float(entropy_caps(torch.tensor([[delta]], dtype=torch.double), vocabulary))


def pass_at(n: int, right: int, k: int) -> float:
    """Unbiased pass@k of n answers of which some are right: 1 - C(n - c, k) / C(n, k)."""
    return 1 - math.comb(n - right, k) / math.comb(n, k)


def figures(drawn: Sequence[Answer], samples: int, *, seed: int) -> dict[str, Any]:
    """Means over prompts with 95 % intervals."""
    count = max(one.prompt for one in drawn) + 1
    weights = resample(count, seed=seed)
    per_prompt = [[one for one in drawn if one.prompt == number] for number in range(count)]

    def over(values: Sequence[float]) -> dict[str, float] | None:
        return estimate(weights @ np.array(values))

    powers = [2**power for power in range(samples.bit_length()) if 2**power <= samples]
    names = ("log_c", "cap", "rounds", "sequence_forwards")
    means = {
        name: over([float(np.mean([getattr(one, name) for one in some])) for some in per_prompt]) for name in names
    }
    counts = [Counter(one.text for one in some) for some in per_prompt]
    return {
        "n": count,
        "pass_at": {
            k: over([pass_at(samples, sum(one.right for one in some), k) for some in per_prompt]) for k in powers
        },
        **means,
        "different": over([len(one) / samples for one in counts]),
        "answer_entropy": over([entropy_of(one) for one in counts]),
        "right_different": over([float(len({one.text for one in some if one.right})) for some in per_prompt]),
    }


def entropy_of(counts: Mapping[str, int]) -> float:
    """Plug-in entropy of a sample, in nats; at most log of its size."""
    share: Array = np.array(list(counts.values())) / sum(counts.values())
    return float(-(share * np.log(share)).sum())


def toy(seed: int, alpha: float, rows: int, inputs: StudyInputs) -> dict[str, Any]:
    """How far apart p^alpha, the mean-field law and the chain itself are on one exhaustive 3 x 3 model.

    Args:
        seed: of the model and the draws.
        alpha: power of the target, 1/T.
        rows: draws of each chain.
        inputs: of the study.
    """
    joint = torch.softmax(torch.randn(27, generator=torch.Generator().manual_seed(seed)) * 2, 0)
    model = JointDenoiser(joint.view(3, 3, 3))
    target, heuristic = tempered(model, alpha), law(model, mean_field_future, alpha)
    exact = exact_future(model, alpha)
    chains = {"mean_field": IndependentMH(alpha, 13, order="left_to_right")}
    chains["exact"] = IndependentMH(alpha, 13, order="left_to_right", future=exact)
    draws = {name: sampled(model, policy, rows, inputs.generator(offset=seed)) for name, policy in chains.items()}
    local = law(model, lambda canvases, reading: torch.zeros(canvases.tokens.shape[:2]), alpha)
    return {
        "seed": seed,
        "chain_steps": 12,
        "rows": rows,
        "local_to_target": distance(local, target),
        "mean_field_to_target": distance(heuristic, target),
        "exact_chain_to_target": distance(draws["exact"], target),
        "mean_field_chain_to_own_law": distance(draws["mean_field"], heuristic),
    }


def draw(result: dict[str, Any], figure: Figure) -> None:
    """pass@k and quality against diversity for each task, and the toy's distances."""
    tasks = list(dict.fromkeys(row["task"] for row in result["rules"]))
    figure.set_size_inches(14, 4.6 * len(tasks) + 1.2)
    samples = result["settings"]["samples"]
    head(figure, f"Quality against exploration, {samples} answers a prompt, 95 % intervals", result["models"])
    grid = figure.subplots(len(tasks), 3, squeeze=False)
    for task, (left, middle, right) in zip(tasks, grid, strict=True):
        for number, row in enumerate(one for one in result["rules"] if one["task"] == task):
            style = {"color": f"C{number}", "marker": "osD^vP*X"[number % 8], "label": row["rule"]}
            shares = list(row["pass_at"].values())
            ks = [int(k) for k in row["pass_at"]]
            x = [k * 1.03 ** (number - 3) for k in ks]  # side by side, so that the intervals can be told apart
            left.errorbar(x, [one["estimate"] for one in shares], yerr=whiskers(shares), capsize=2, lw=1, **style)
            middle.plot(row["answer_entropy"]["estimate"], row["log_c"]["estimate"], ls="", ms=9, **style)
        ticks(left, ks)
        left.set(xlabel="answers k", ylabel="pass@k, mean over prompts", ylim=(-0.02, 1.02))
        left.set_title(f"{task} (n = {row['n']})")
        middle.set(xlabel="entropy of the answers drawn, nats", ylabel="mean log p of a token when committed, nats")
        middle.set_title(f"{task}: own likelihood against diversity")
        draw_toy(result["toy"], right)
    handles, labels = grid[0][1].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower left", ncols=4, fontsize=9, title="rule (left and middle)")


def draw_toy(rows: list[dict[str, Any]], axes: Any) -> None:
    """Total variation on the exhaustive models."""
    bars = {
        "local_to_target": "no look-ahead, to p^alpha",
        "mean_field_to_target": "mean-field law, to p^alpha",
        "exact_chain_to_target": "chain with exact Z, to p^alpha",
        "mean_field_chain_to_own_law": "chain with mean-field Z, to its own law",
    }
    for number, (name, label) in enumerate(bars.items()):
        axes.bar([i + 0.2 * number for i in range(len(rows))], [row[name] for row in rows], 0.2, label=label)
    axes.set_xticks([i + 0.3 for i in range(len(rows))], [f"model {row['seed']}" for row in rows])
    axes.set(ylabel="total variation", title="3 tokens, 3 positions, exhaustive")
    axes.set_ylim(0, 1.5 * axes.get_ylim()[1])
    axes.legend(fontsize=8)
