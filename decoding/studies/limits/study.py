"""Where the papers stop: fewest rounds under structure, cheaper verification, and two assumptions measured on the base."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from decoding.api import generate
from decoding.comparison.curves import resample
from decoding.comparison.results import estimate
from decoding.comparison.statistics import bits_to_rounds
from decoding.policies.bounds import EntropyBound, Factor
from decoding.policies.quota import Sequential
from decoding.policies.threshold import EntropyThreshold, Threshold
from decoding.policy import Policy
from decoding.studies.chain_rule import token_nats
from decoding.studies.inputs import StudyInputs
from decoding.studies.limits import assumption
from decoding.studies.limits.acceptance import verification
from decoding.studies.limits.coherence import coherence
from decoding.studies.limits.exact_conflicts import measure_conflicts
from decoding.studies.schedules import block_joint, chain_joint, need, search, subset_entropies, tree_joint
from models.toys.block_hmm import BlockHMMConfig

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DIALS: dict[str, list[Policy]] = {
    "threshold": [Threshold(c) for c in (0.6, 0.8, 0.9, 0.99)],
    "factor": [Factor(f) for f in (0.25, 0.5, 1.0, 2.0)],
    "entropy bound": [EntropyBound(g) for g in (0.01, 0.1, 0.5, 1.0)],
    "entropy threshold": [EntropyThreshold(h) for h in (0.1, 0.4, 0.6)],
    "one a round": [Sequential()],
}


def measure(
    inputs: StudyInputs,
    *,
    flip: float = 0.1,
    length: int = 8,
    deltas: Sequence[float] = (0.01, 0.1, 0.5),
    eta: float = 1e-8,
    temperatures: Sequence[float] = (1.0, 1.25, 1.5, 2.0, 3.0, 5.0),
    tries: Sequence[int] = (1, 2, 4, 8, 16, 32, 64, 128, 256),
    error_task: str = "sudoku-hard",
    error_prompts: int = 8,
    shared_task: str = "multiplication",
    convolutional: str = "checkpoints/multiplication-convolutional",
    chain_task: str = "countdown3",
    chain_prompts: int = 8,
    orders: int = 4,
    coherence_task: str = "words",
    coherence_prompts: int = 8,
    tokens: Sequence[int] = (1, 4, 16, 32),
    joint_blocks: int = 2,
    joint_size: int = 5,
    fitted: int = 2500,
    epochs: int = 20,
    bounds: Sequence[float] = (0.02, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.49),
) -> dict[str, Any]:
    """Search schedules exactly, trade verification for proposals, weigh risk and conflict, test two assumptions on the base.

    Args:
        inputs: base, prompts, device and seed, from the command.
        flip: probability that a bit of the chain and of the tree differs from its parent.
        length: bits of the chain; the tree has one less, the Block-HMM blocks of 4 that make as many.
        deltas: forward KL allowed, nats.
        eta: parity noise of the block that is verified.
        temperatures: of tempered verification.
        tries: caps on proposals.
        error_task: a task with unique answers, for Assumption 4.2.
        error_prompts: its prompts.
        shared_task: on which base and `convolutional` are measured alike.
        convolutional: folder of a denoiser without attention that was trained on it.
        chain_task: whose answers are scored in several orders.
        chain_prompts: its prompts.
        orders: orders of each answer: left to right, right to left, the rest random.
        coherence_task: whose answers are sentences.
        coherence_prompts: its prompts.
        tokens: committed a round there; each must divide the task's block.
        joint_blocks, joint_size: of the Block-HMM that risk and conflict are judged on.
        fitted, epochs: sequences and passes of the head that is fitted on it.
        bounds: on the risk there, below .5, the risk of a fair bit: a tie would go by the rule's comparison or by rounding.

    Raises:
        ValueError: if there is no denoiser without attention.
    """
    assumption.require_convolutional(convolutional)
    whole = BlockHMMConfig(blocks=joint_blocks, size=joint_size, eta=1e-3)
    small = BlockHMMConfig(blocks=length // 4, size=4, eta=1e-3)
    joints = {
        f"chain of {length} bits": chain_joint(length, flip),
        f"tree of {length - 1} bits": tree_joint(length - 1, flip),
        f"Block-HMM, {small.blocks} x 4 bits": block_joint(small),
    }
    return {
        "fewest": [fewest(name, joint, deltas) for name, joint in joints.items()],
        "verification": verification(BlockHMMConfig(eta=eta), temperatures, tries),
        "assumption": assumption.measure(inputs, error_task, error_prompts, convolutional, shared_task),
        "together": measure_conflicts(inputs, whole, fitted=fitted, epochs=epochs, bounds=bounds),
        "orders": consistency(inputs, chain_task, chain_prompts, orders),
        "coherence": coherence(inputs, coherence_task, coherence_prompts, tokens),
        "cut": [
            f"{error_prompts} prompts for Assumption 4.2, {chain_prompts} for the orders, {coherence_prompts} for coherence, "
            "200 each in the full config",
            "schedules are fixed: one that looks at the values drawn may need fewer rounds still",
            "Assumption 4.2 is measured by the share of wrong tokens at temperature 0, earlier errors by their number: the law of "
            "a task with one answer puts no mass elsewhere, and the KL of Eq. 6 is infinite",
            f"risk and conflict are judged on one Block-HMM of {joint_blocks} x {joint_size} bits, by one fit of a head; the model "
            "is right there",
        ],
    }


def fewest(name: str, joint: Tensor, deltas: Sequence[float]) -> dict[str, Any]:
    """The search beside the bound and what every policy takes and loses."""
    search_result, entropy = search(joint), float(subset_entropies(joint)[-1])
    policies = []
    for rule, dials in DIALS.items():
        for policy in dials:
            took = need(joint, policy)
            dial = next(iter(asdict(policy).values()))
            policies.append({"policy": rule, "dial": dial, **asdict(took)})
    allowed = [
        {
            "delta": delta,
            "fewest": search_result.fewest(delta),
            "policies": {
                rule: min(
                    (p["rounds"] for p in policies if p["policy"] == rule and p["forward_kl"] <= delta), default=None
                )
                for rule in DIALS
            },
        }
        for delta in deltas
    ]
    return {
        "model": name,
        "entropy": entropy,
        "bound": bits_to_rounds(entropy, n=joint.ndim, factor=1.0).joint,
        "kl": search_result.kl,
        "schedules": search_result.schedules,
        "policies": policies,
        "allowed": allowed,
    }


def consistency(inputs: StudyInputs, task: str, count: int, orders: int) -> dict[str, Any]:
    """-log p(x) of the base's own answers by the any-order chain in several orders; one joint law would give one figure.

    Args:
        inputs: of the study.
        task: of the prompts.
        count: answers.
        orders: of each, the first two left to right and right to left.
    """
    denoiser, problems = inputs.denoiser(), inputs.problems(task, count).problems
    generator, table = inputs.generator(offset=1), []
    for prompt in problems.test:
        made = generate(
            denoiser,
            [prompt],
            "sequential",
            gen_length=problems.gen_length,
            block_length=problems.block_length,
            early_stop=False,
        )
        length, whole = problems.gen_length, made.sequences.shape[1]
        forth = torch.arange(length)
        places = [forth, forth.flip(0), *(torch.randperm(length, generator=generator) for _ in range(orders - 2))]
        order = torch.full((orders, whole), -1)
        order[:, -length:] = torch.stack(places[:orders])
        nats = token_nats(denoiser, made.sequences.expand(orders, -1), order.to(denoiser.device)).sum(-1)
        table.append([float(one) for one in nats])
    values = np.array(table)
    spread = values.max(1) - values.min(1)
    weights = resample(len(values), seed=inputs.seed)
    return {
        "task": task,
        "names": ["left to right", "right to left", *(f"random {n}" for n in range(1, orders - 1))][:orders],
        "nll": table,
        "spread": estimate(weights @ spread),
        "deviation": estimate(weights @ values.std(1)),
    }


def draw(result: dict[str, Any], figure: Figure) -> None:
    """Three models' rounds, verification, the assumption, the orders."""
    from decoding.studies.limits.picture import draw_all

    draw_all(result, figure)
