"""Prompts and how to decode them, as far as that can be judged without torch."""

from __future__ import annotations

from dataclasses import dataclass, fields, is_dataclass
from typing import TYPE_CHECKING, Any, cast

from decoding.calls.request import Request
from train.commands.answering.prompt_file import Asked
from train.tasks import Example, Task

if TYPE_CHECKING:
    from decoding import Policy, Row
    from models.denoiser import Denoiser


@dataclass(frozen=True)
class GenerateCall:
    """Prompts and how to decode them, as far as that can be judged without torch.

    Attributes:
        prompts: what is decoded; none for a conversation.
        task: whose prompts these are, or None.
        request: policy, lengths and settings.
        model: checkpoint folder or hub id.
        head: folder of the scoring head that is named or that the policy reads, or None.
        adapter: folder of a PEFT adapter that is merged into the model, or None.
        calibrated: file of calibrate.py that the decode must agree with, or None.
    """

    prompts: tuple[Asked, ...]
    task: Task | None
    request: Request
    model: str
    head: str | None
    adapter: str | None = None
    calibrated: str | None = None

    @property
    def example(self) -> Example:
        """The first prompt."""
        return self.prompts[0].example

    def settings(self, rule: Policy, denoiser: Denoiser, seed: int) -> dict[str, Any]:
        """Everything the answers depend on, the weights themselves by their fingerprints."""
        from decoding.provenance import weights_of

        return {
            "model": self.model,
            "head": self.head,
            "adapter": self.adapter,
            **weights_of(denoiser),
            "task": self.task and self.task.name,
            "policy": {"name": self.request.policy, **described(rule)},
            "gen_length": self.request.gen_length,
            "block_length": self.request.block_length,
            "calibrated": self.calibrated,
            **self.request.options,
            "seed": seed,
        }


def described(policy: Policy) -> dict[str, Any]:
    """The settings of a policy but its head, those of a rule that it checks inside."""
    found = {f.name: getattr(policy, f.name) for f in fields(policy) if f.repr and f.name != "head"}
    return {
        n: {"name": type(v).__name__, **described(cast("Policy", v))} if is_dataclass(v) else v
        for n, v in found.items()
    }


def counts_of(row: Row) -> dict[str, int]:
    """What an answer cost, by the names that are written."""
    names = ("rounds", "sequence_forwards", "token_positions", "looks", "drafts", "drafts_true")
    return {name: getattr(row, name) for name in names}
