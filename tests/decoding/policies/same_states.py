"""When two decodes count as one and the same."""

from __future__ import annotations

import torch

from decoding.state import DecodeState


def same_but_for_rounds(one: DecodeState, two: DecodeState) -> None:
    """Finished states: a row that is done keeps its clock ticking while others go on."""
    for name in ("tokens", "masked", "opened", "reason", "committed_confidence"):
        torch.testing.assert_close(getattr(one, name), getattr(two, name), msg=name)  # a last bit moves with the batch
