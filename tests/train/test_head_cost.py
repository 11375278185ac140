"""The policy asked beside another changes nothing that is committed."""

from __future__ import annotations

import torch

from decoding import generate
from decoding.policies.quota import Sequential
from decoding.policies.threshold import Threshold
from models.toys.toy import GroupDenoiser
from train.head_cost import Beside


def test_what_is_asked_beside_is_not_obeyed():
    prompt, settings = torch.zeros(1, 1, dtype=torch.long), {"gen_length": 16, "block_length": 8}
    plain, beside, other = (
        generate(GroupDenoiser(2, 8), prompt, rule, **settings)
        for rule in (Threshold(0.9), Beside(Threshold(0.9), Sequential()), Sequential())
    )
    assert plain.rounds.tolist() == beside.rounds.tolist() != other.rounds.tolist()
    assert torch.equal(plain.sequences, beside.sequences)
