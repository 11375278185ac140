"""DAWN: the attention says which positions depend on each other, and so which may be committed together."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import final

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from decoding.policies.rules import at_least_one, require
from decoding.policy import Needs, Policy, rank
from decoding.reading import Reading
from decoding.state import DecodeState, Proposal

PASSES = 16  # of the independent set: each settles every position whose rivals are settled


@final
@dataclass(frozen=True)
class DAWN(Policy):
    """Commit what is confident, what depends on it, and of the rest what is independent: DAWN, arXiv 2602.06953.

    As in the authors' code.
    With A the attention of the last blocks, less sinks (mean over queries > tau_sink) and diagonal, position j depends on i
    where A_ji >= tau_edge. A round commits
      1. the confident: c >= threshold;
      2. the induced: c >= tau_induce, dependent on an anchor, a position that is no mask (of the prompt too) and is predicted with
         probability >= threshold;
      3. of the others with c >= tau_low that depend on no position both confident and induced, an independent set of the graph
         (an edge in either direction), the most confident first;
    and where that is nothing the most confident position.

    Args:
        tau_low: in (0, 1], the dial; .7 to .8 in the published runs, less is bolder.
        tau_induce: in (0, 1].
        tau_edge: attention that is a dependency, in (0, 1].
        tau_sink: mean attention that is a sink, in (0, 1].
        threshold: of the confident and of anchors, in (0, 1].
        maps: last blocks of the base whose attention is averaged, at least 1; the last 4 of 32 in the published runs.
    """

    tau_low: float = 0.7
    tau_induce: float = 0.7
    tau_edge: float = 0.07
    tau_sink: float = 0.01
    threshold: float = 0.9
    maps: int = 4

    def __post_init__(self) -> None:
        for name in ("tau_low", "tau_induce", "tau_edge", "tau_sink", "threshold"):
            require(0 < getattr(self, name) <= 1, name, "lie in (0, 1]", getattr(self, name))
        require(self.maps >= 1, "maps", "be at least 1", self.maps)

    @property
    def needs(self) -> Needs:
        """The attention of the last blocks."""
        return Needs(maps=self.maps)

    def propose(self, state: DecodeState, reading: Reading) -> Proposal:
        """Commit the confident, the induced, and an independent set of the rest."""
        masked, c = reading.rows & state.masked, reading.confidence
        depends = self.dependencies(reading)
        confident = masked & (c >= self.threshold)
        anchors = reading.rows & ~state.masked & (c >= self.threshold)
        induced = masked & (c >= self.tau_induce) & (depends & anchors.unsqueeze(1)).any(-1)
        tied = (depends & (confident & induced).unsqueeze(1)).any(-1)
        rest = masked & (c >= self.tau_low) & ~confident & ~induced & ~tied
        free = independent_set(rest, depends | depends.transpose(-1, -2), reading.log_odds)
        accepted = confident | induced | free
        reason = at_least_one(accepted, reading.log_odds, replace(reading, rows=masked))
        return Proposal.single(state, reading, reason)

    def dependencies(self, reading: Reading) -> Bool[Tensor, "B L L"]:
        """At [j, i] whether position j depends on i."""
        if reading.attention is None:
            return torch.zeros_like(reading.rows.unsqueeze(-1) & reading.rows.unsqueeze(-2))
        attention = reading.attention
        queries = attention.any(-1).sum(-1, keepdim=True).clamp(min=1)  # the lines of padding hold nothing
        sink = attention.sum(-2) / queries > self.tau_sink
        itself = torch.eye(attention.shape[-1], dtype=torch.bool, device=attention.device)
        return (attention >= self.tau_edge) & ~sink.unsqueeze(-2) & ~itself


def independent_set(
    nodes: Bool[Tensor, "B L"], edges: Bool[Tensor, "B L L"], score: Float[Tensor, "B L"]
) -> Bool[Tensor, "B L"]:
    """From the best node on, every node without an edge to one taken before it.

    A pass takes the nodes all of whose better neighbours are out, and puts their neighbours out. A node that is not settled after
    `PASSES` passes, at the end of a longer chain of neighbours each worse than the last, is left.

    Args:
        nodes: positions that may be taken.
        edges: symmetric.
        score: of each node; ties go leftmost.
    """
    place = rank(score, nodes)
    rivals = edges & nodes.unsqueeze(-2) & (place.unsqueeze(-2) < place.unsqueeze(-1))  # [i, j]: j comes before i
    taken, open_ = torch.zeros_like(nodes), nodes
    for _ in range(PASSES):
        now = open_ & ~(rivals & open_.unsqueeze(-2)).any(-1)
        taken = taken | now
        open_ = open_ & ~now & ~(rivals & now.unsqueeze(-2)).any(-1)
    return taken
