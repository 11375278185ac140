"""Risk and conflict judged by an exact law: a head fitted on a small Block-HMM, its rules beside confidence alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, final

import torch
from jaxtyping import Float
from torch import Tensor

from decoding.policies.learned import Learned, compatible_set
from decoding.policies.rules import at_least_one
from decoding.policies.threshold import Threshold
from decoding.policy import Policy
from decoding.reading import Reading
from decoding.state import DecodeState, Proposal
from decoding.studies.inputs import StudyInputs
from decoding.studies.schedules import block_joint, law
from models.toys.block_hmm import BlockHMM, BlockHMMConfig

if TYPE_CHECKING:
    from models.heads.scoring_head import ScoringHead

RULES = ("each", "sum", "pairs")
EXACT = "exact pairs"


def measure_conflicts(
    inputs: StudyInputs, config: BlockHMMConfig, *, fitted: int, epochs: int, bounds: Sequence[float]
) -> dict[str, Any]:
    """Rounds, reverse KL and broken blocks of every rule at every bound, summed over all sequences: no draw is made.

    Args:
        inputs: fits the head.
        config: the Block-HMM, of about 12 bits at most; it is decoded block by block.
        fitted: sequences that the head is fitted on.
        epochs: of the fit.
        bounds: on the risk, no risk being one of them: c >= 1 - b takes a tie, risk < b does not.
    """
    model, joint = BlockHMM(config), block_joint(config)
    drawn = model.sample(fitted, inputs.generator(offset=2))
    head = inputs.fit(model, drawn, block_length=config.size, epochs=epochs, pairs=True, seed=inputs.seed)
    rows = []
    for name, policy_of in arms(head, model).items():
        for bound in bounds:
            rows.append({"policy": name, "bound": bound} | exact_figures(joint, policy_of(bound), config))
    return {"blocks": config.blocks, "size": config.size, "eta": config.eta, "sequences": fitted, "rows": rows}


def arms(head: ScoringHead, model: BlockHMM) -> dict[str, Callable[[float], Policy]]:
    """Policies by the bound on risk."""
    learned = {
        f"learned, {rule}": lambda bound, rule=rule: Learned(head, risk_bound=bound, rule=rule) for rule in RULES
    }
    return {
        "threshold": lambda bound: Threshold(1 - bound),
        **learned,
        EXACT: lambda bound: ExactConflicts(model, bound),
    }


def exact_figures(joint: Tensor, policy: Policy, config: BlockHMMConfig) -> dict[str, float]:
    """What a policy takes and loses under its own law q."""
    own_law = law(joint, policy, block_length=config.size)
    q = own_law.log_q.exp()
    bits = torch.cartesian_prod(*[torch.arange(2)] * config.length)
    odd = torch.unflatten(bits, 1, (config.blocks, config.size)).sum(-1) % 2
    return {
        "rounds": float(q @ own_law.rounds),
        "reverse_kl": max(0.0, own_law.reverse_kl),
        "forward_kl": max(0.0, own_law.forward_kl),
        "incoherence": float(q @ odd.double().mean(-1)),
    }


def exact_conflict(model: BlockHMM, state: DecodeState) -> Float[Tensor, "B L L"]:
    """kappa_ij = sum_v p(x_i = v) [argmax p(x_j | x_i = v) is not argmax p(x_j)] given what is revealed, for masked i."""
    now = model.marginals(state.tokens)
    conflict = torch.zeros(*state.tokens.shape, state.tokens.shape[1])
    for i in range(state.tokens.shape[1]):
        for value in range(2):
            tokens = state.tokens.clone()
            tokens[state.masked[:, i], i] = value
            turned = model.marginals(tokens).argmax(-1) != now.argmax(-1)
            conflict[:, i] += now[:, i, value, None].float() * turned
    return conflict


@final
@dataclass(frozen=True)
class ExactConflicts(Policy):
    """The rule `pairs` with 1 - c for risk and the model's own conflicts: what a perfect conflict output would do.

    Args:
        model: the Block-HMM, asked twice more for every position.
        risk_bound: b.
    """

    model: BlockHMM = field(repr=False)
    risk_bound: float

    def propose(self, state: DecodeState, reading: Reading) -> Proposal:
        """Commit what is safe together, at least the surest position."""
        risk = reading.log_risk.exp()
        safe = compatible_set(risk, exact_conflict(self.model, state), reading.rows, self.risk_bound)
        return Proposal.single(state, reading, at_least_one(safe, reading.log_odds, reading))
