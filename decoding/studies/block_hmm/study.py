"""Every decoder on the exact Block-HMM of arXiv 2602.00286: what each loses against the joint distribution it reads."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from decoding.api import generate
from decoding.generation import Generation
from decoding.policies.bounds import EntropyBound, Factor
from decoding.policies.ete import BeamETE
from decoding.policies.imh import IndependentMH
from decoding.policies.learned import Learned
from decoding.policies.quota import Order, Quota, Sequential
from decoding.policies.remask import DraftVerify, RemaskLowest
from decoding.policies.threshold import Threshold
from decoding.policy import Policy
from decoding.studies.block_hmm.divergence import divergence, laws
from decoding.studies.block_hmm.picture import draw
from decoding.studies.block_hmm.remasking import remasking
from decoding.studies.inputs import StudyInputs
from models.denoiser import Denoiser
from models.toys.block_hmm import BlockHMM, BlockHMMConfig
from models.toys.perturbed import Perturbed

if TYPE_CHECKING:
    from models.heads.scoring_head import ScoringHead

__all__ = ["draw", "measure"]

BAR = 1e-8  # tau of the incoherence, on the block conditional
SWEPT: Mapping[str, Order] = {"left to right": "left_to_right", "random": "random", "lowest entropy": "entropy"}


def measure(
    inputs: StudyInputs,
    *,
    etas: Sequence[float] = (1e-8, 1e-7, 1e-6, 1e-5, 1e-4),
    samples: int = 48,
    accepted: int = 400,
    rounds: Sequence[int] = (1, 5, 10, 50),
    masked: Sequence[int] = (1, 2, 4),
    fitted: int = 200,
    policy_samples: int = 16,
    swept_samples: int = 18,
    swept_blocks: int = 3,
    swept_eta: float = 1e-3,
    widths: Sequence[int] = (1, 2, 4, 8),
    strengths: Sequence[float] = (0.0, 0.5, 1.0),
) -> dict[str, Any]:
    """Exact divergences, their Monte-Carlo estimates, verified decoding, remasking, every policy, and a wrong model.

    Args:
        inputs: base, prompts, device and seed, from the command.
        etas: noise of the parity bit.
        samples: sequences of each Monte-Carlo estimate.
        accepted: blocks drawn by accept-reject.
        rounds: rounds of remasking.
        masked: positions masked again in a round of remasking.
        fitted: sequences that the features-only head is fitted on.
        policy_samples: sequences that each policy decodes.
        swept_samples: sequences of each cell of the sweep over a wrong model.
        swept_blocks, swept_eta: of the smaller Block-HMM of that sweep.
        widths: tokens a round of that sweep.
        strengths: standard deviation of the error of a logit in that sweep.
    """
    strict = BlockHMMConfig(eta=etas[0])
    generator = inputs.generator()
    model = counted(inputs, strict)
    small = BlockHMMConfig(blocks=swept_blocks, eta=swept_eta)
    exact = {eta: divergence(BlockHMMConfig(eta=eta), bar=BAR) for eta in etas}
    names = ("forward_kl", "reverse_kl", "incoherence", "broken", "entropy")
    head = inputs.fit(model, model.sample(fitted, generator), block_length=strict.size, seed=inputs.seed)
    return {
        "exact": [{"eta": eta} | {name: getattr(found, name) for name in names} for eta, found in exact.items()],
        "monte_carlo": [monte_carlo(inputs, BlockHMMConfig(eta=eta), samples, generator) for eta in etas],
        "first_block": first_block(strict),
        "verified": verified(strict, model.sample(samples, generator), accepted, generator),
        "remasking": remasking(strict, rounds, masked),
        "policies": list(every_policy(model, head, policy_samples, generator, exact[etas[0]].entropy)),
        "perturbed": list(sweep(inputs, small, widths, strengths, swept_samples)),
        "cut": [
            f"{samples} sequences a Monte-Carlo estimate, {policy_samples} a policy and {swept_samples} a cell of the sweep: hence "
            "the standard errors",
            f"the sweep runs on {swept_blocks} blocks with eta = {swept_eta:g}; accept-reject is run on the first block only, "
            "where sup p / q is 61; later blocks need up to thousands of proposals and are given in expectation",
        ],
    }


def counted(inputs: StudyInputs, config: BlockHMMConfig) -> BlockHMM:
    """The model, on the CPU in float64, its rows counted."""
    model = BlockHMM(config)
    inputs.counted(model)
    return model


def decode(model: Denoiser, policy: Policy, count: int, generator: torch.Generator, **canvas: int) -> Generation:
    """Draw sequences with the ordinary loop at temperature 1; the one prompt token says nothing.

    Args:
        model: the Block-HMM, exact or perturbed.
        policy: what decides.
        count: sequences.
        generator: of the draws.
        canvas: gen_length and block_length.
    """
    blank = torch.zeros(count, 1, dtype=torch.long, device=model.device)
    gen_length, block_length = canvas["gen_length"], canvas["block_length"]
    size = {"gen_length": gen_length, "block_length": block_length}
    return generate(model, blank, policy, generator=generator, temperature=1.0, **size)  # type: ignore[arg-type]


def path(made: Generation) -> Float[Tensor, " B"]:
    """log q of a decode whose schedule does not look at what was drawn: the sum of log c."""
    return made.state.committed_confidence[:, 1:].double().log().sum(-1)


def mean(values: Tensor) -> dict[str, float]:
    """Mean and its standard error."""
    sample = values.double()
    return {"estimate": float(sample.mean()), "standard_error": float(sample.std() / math.sqrt(len(sample)))}


def block_log_q(model: BlockHMM, canvas: Int[Tensor, "N T"]) -> Float[Tensor, " N"]:
    """log p_B(x): every block position by position, given the blocks before."""
    size, total = model.config.size, torch.zeros(len(canvas), dtype=torch.double)
    for first in range(0, canvas.shape[1], size):
        blank = canvas.clone()
        blank[:, first:] = model.mask_id
        rows = torch.zeros_like(blank, dtype=torch.bool)
        rows[:, first : first + size] = True
        here = model(blank, rows=rows).logits.unflatten(0, (-1, size)).double().log_softmax(-1)
        total += here.gather(-1, canvas[:, first : first + size, None]).sum((-2, -1))
    return total


def monte_carlo(
    inputs: StudyInputs, config: BlockHMMConfig, samples: int, generator: torch.Generator
) -> dict[str, Any]:
    """Both divergences estimated by the library's own decoder: a whole block a round against verified draws.

    Args:
        inputs: of the study.
        config: of the Block-HMM.
        samples: sequences an estimate.
        generator: of the draws.
    """
    model = counted(inputs, config)
    drawn = model.sample(samples, generator)
    size = {"gen_length": config.length, "block_length": config.size}
    made = decode(model, Quota(steps=config.blocks), samples, generator, **size)
    log_p = model.block_log_probs(made.canvas)
    return {
        "eta": config.eta,
        "forward_kl": mean(model.log_prob(drawn) - block_log_q(model, drawn)),
        "reverse_kl": mean(path(made) - log_p.sum(-1)),
        "incoherence": mean((log_p <= math.log(BAR)).double().mean(-1)),
    }


def first_block(config: BlockHMMConfig) -> dict[str, float]:
    """Total correlation both ways, and the proposals that exact accept-reject needs."""
    here = laws(config, torch.full((1, len(config.rho)), 1 / len(config.rho), dtype=torch.double))
    tc, reverse, proposals = (float(v) for v in (here.total_correlation, here.reverse, here.proposals))
    return {"total_correlation": tc, "reverse": reverse, "proposals": proposals, "exp_tc": math.exp(tc)}


def verified(
    config: BlockHMMConfig, drawn: Int[Tensor, "N T"], accepted: int, generator: torch.Generator
) -> dict[str, Any]:
    """Verified decoding by exact enumeration, and by accept-reject with its proposals counted, against exp(TC).

    Args:
        config: of the Block-HMM.
        drawn: exact sequences.
        accepted: draws that the accept-reject keeps.
        generator: of its draws.
    """
    model, size = BlockHMM(config), config.size
    log_p = model.block_log_probs(drawn)
    beliefs = model.beliefs(drawn)
    blocks = []
    for number in range(config.blocks):
        here = laws(config, beliefs[:, number])
        tc, proposals = here.total_correlation, here.proposals
        blocks.append({"block": number, "exp_tc": mean(tc.exp()), "proposals": mean(proposals)})
    blank = torch.full((1, config.length), model.mask_id)
    joint = model.block_joint(blank, 0)[0]
    q = model.marginals(blank)[0, :size].gather(-1, model.patterns.long().T).prod(0)
    bar = joint / q / (joint / q).max()
    tries: list[int] = []
    count = int(4 * accepted * (joint / q).max())
    pattern = torch.multinomial(q, count, replacement=True, generator=generator)
    hits = (torch.rand(count, generator=generator, dtype=torch.double) < bar[pattern]).nonzero().squeeze(-1)[:accepted]
    tries = torch.diff(hits, prepend=torch.tensor([-1])).tolist()
    taken = torch.bincount(pattern[hits], minlength=len(joint)).double() / len(hits)
    return {
        "enumeration": {
            "incoherence": mean((log_p <= math.log(BAR)).double().mean(-1)),
            "risk": mean(-log_p.sum(-1)),
        },
        "accept_reject": {
            "proposals": mean(torch.tensor(tries)),
            "exp_tc": first_block(config)["exp_tc"],
            "distance_to_joint": float(0.5 * (taken - joint).abs().sum()),
        },
        "blocks": blocks,
    }


def policies(head: ScoringHead, config: BlockHMMConfig) -> dict[str, Policy]:
    """Every kind of decoder of the library."""
    return {
        "block (mean field)": Quota(steps=config.blocks),
        "quota 2 a round": Quota(steps=config.length // 2),
        "one a round, surest": Sequential(),
        "one a round, from the left": Sequential(order="left_to_right"),
        "threshold .9": Threshold(0.9),
        "factor 1": Factor(1.0),
        "entropy bound .1": EntropyBound(0.1),
        "ete": BeamETE(threshold=0.9, gamma=0.7, min_masks=2, step_budget=4),
        "learned": Learned(head, risk_bound=0.1, rule="each"),
        "imh": IndependentMH(alpha=1.0, proposals=4),
        "draft-verify": DraftVerify(0.5, 0.9),
        "remask-lowest": RemaskLowest(0.5, 0.9, count=4),
    }


def every_policy(
    model: BlockHMM, head: ScoringHead, count: int, generator: torch.Generator, entropy: float
) -> Iterator[dict[str, Any]]:
    """Rounds, sampling risk E[-log p], different sequences and broken blocks of every policy at temperature 1.

    Exact draws have a risk of H(p); less is no merit, it means that the draws crowd around the mode.

    Args:
        model: the exact Block-HMM.
        head: for `learned`.
        count: sequences of each policy.
        generator: of the draws.
        entropy: H(p) in nats, written beside the risk.
    """
    config = model.config
    for name, policy in policies(head, config).items():
        made = decode(model, policy, count, generator, gen_length=config.length, block_length=config.size)
        log_p = model.block_log_probs(made.canvas)
        odd = torch.unflatten(made.canvas, 1, (config.blocks, config.size)).sum(-1) % 2
        yield {
            "policy": name,
            "rounds": mean(made.rounds),
            "sequence_forwards": mean(made.sequence_forwards),
            "risk": mean(-log_p.sum(-1)),
            "incoherence": mean((log_p <= math.log(BAR)).double().mean(-1)),
            "distinct": len(torch.unique(made.canvas, dim=0)) / count,
            "broken": mean(odd.double().mean(-1)),
            "entropy": entropy,
        }


def sweep(
    inputs: StudyInputs, config: BlockHMMConfig, widths: Sequence[int], strengths: Sequence[float], count: int
) -> Iterator[dict[str, Any]]:
    """Reverse KL E[log q(x | order) - log p(x)] of a wrong model by order and tokens a round, on one open block.

    Args:
        inputs: of the study.
        config: of the Block-HMM.
        widths: tokens a round.
        strengths: of the perturbation, at least 0.
        count: sequences a cell.
    """
    model = counted(inputs, config)
    length = config.length
    for strength in strengths:
        wrong = Perturbed(model, length=length, strength=strength, seed=inputs.seed)
        for name, order in SWEPT.items():
            for width in widths:
                policy = Quota(order=order, steps=length // width)
                made = decode(
                    wrong, policy, count, inputs.generator(offset=width), gen_length=length, block_length=length
                )
                reverse = mean(path(made) - model.log_prob(made.canvas))
                yield {"strength": strength, "order": name, "tokens_a_round": width, "reverse_kl": reverse}
