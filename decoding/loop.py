"""The only decode loop."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import closing
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor

from decoding.calls.draws import Counter
from decoding.calls.waiting import Queue
from decoding.policy import Policy, identity_of
from decoding.rounds.driver import Driver
from decoding.rounds.engine import EngineDriver
from decoding.rounds.plain import PlainDriver
from decoding.rounds.round import Counts, OnStep, Round
from decoding.sampling import Sampling
from decoding.state import DecodeState
from models.denoiser import Denoiser


@torch.inference_mode()
def decode(
    denoiser: Denoiser,
    state: DecodeState,
    policy: Policy,
    *,
    attention_mask: Bool[Tensor, "B L"] | None = None,
    sampling: Sampling,
    generator: torch.Generator | Counter | None = None,
    on_step: OnStep | None = None,
) -> tuple[DecodeState, Counts]:
    """Commit until no mask is left; `on_step(state, reading)` sees every round before its commit, and only reads.

    Args:
        denoiser: predicts.
        state: where to start (`decoding.state.start`).
        policy: decides.
        attention_mask: False on left padding; None where there is none.
        sampling: how candidates are drawn.
        generator: of every draw, on the denoiser's device; a `Counter` draws for each row by itself.
        on_step: a hook.

    Returns:
        The final state, and what it cost.

    Raises:
        RuntimeError: if the policy commits nothing in a round in which it must.
        ValueError: if a forward gives logits that are NaN or infinite.
    """
    how: dict[str, Any] = {"attention_mask": attention_mask, "sampling": sampling, "generator": generator}
    with closing(rounds(denoiser, state, policy, **how, watched=on_step is not None)) as steps:
        for round_ in steps:
            if on_step is not None and round_.proposal is not None:
                on_step(round_.state, round_.reading)
    return round_.state, round_.counts


def rounds(
    denoiser: Denoiser,
    state: DecodeState,
    policy: Policy,
    *,
    attention_mask: Bool[Tensor, "B L"] | None = None,
    sampling: Sampling,
    generator: torch.Generator | Counter | None = None,
    watched: bool = True,
    queue: Queue | None = None,
) -> Generator[Round, None, None]:
    """One batched forward a round over every live canvas, then choose, propose, commit; `decode` has the arguments.

    Rows may be at different rounds, blocks and branch states; finished rows leave the batch, and where a `queue` is given its
    prompts take their places. Unless `watched`, only the last round is sure to be seen, and of a queue's prompts each one's last.
    Whoever may leave early closes it: until then the denoiser's engine serves no other decode.
    """
    for blocks in sorted(set(state.num_blocks.tolist())):
        policy.check_blocks(blocks)
    settings = {"attention_mask": attention_mask, "sampling": sampling, "generator": generator, "queue": queue}
    driver = driver_for(denoiser, policy, watched=watched, **settings)
    try:
        driver.enter(state, watched=watched)
        while driver.look():
            yield from driver.ended
            round_ = driver.propose()
            if round_ is not None:
                yield round_
            driver.commit()
        yield from driver.ended
        yield driver.leave()
    finally:
        driver.close()


def driver_for(denoiser: Denoiser, policy: Policy, *, watched: bool, **settings: Any) -> Driver:
    """On the denoiser's engine, where it has one that serves the decode and serves no other one now; else plainly."""
    engine = denoiser.engine
    if engine is None or not torch.is_inference_mode_enabled():
        return PlainDriver(denoiser, policy, **settings)
    needs = policy.needs
    unfit = needs.plain or (watched and needs.taps) or not _hashable(policy)  # who watches may read the taps
    if unfit or not engine.serves() or not engine.in_use.acquire(blocking=False):
        engine.refused += 1
        return PlainDriver(denoiser, policy, **settings)
    return EngineDriver(denoiser, policy, **settings)


def _hashable(policy: Policy) -> bool:
    """Whether a policy can name its graphs: one of a user's own may hold a list."""
    try:
        hash(identity_of(policy, id))
    except TypeError:
        return False
    return True
