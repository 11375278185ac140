"""Settings of a call that are long, or of a kind that no setting has: obeyed, or refused in one short sentence."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from decoding.api import generate
from decoding.calls.spellings import ALIASES
from decoding.names import POLICIES
from tests.properties.contract import value_or_sentence
from tests.properties.test_generate import OPTIONS, denoiser_of, settings_of

LONG: list[Any] = [
    "1" * 5000,
    ["a" * 9] * 900,
    {"b": "c" * 5000},
    10**5000,
    -(10**400),
    b"x" * 3000,
    7,
    2.5,
    None,
    object(),
]


@pytest.mark.parametrize("policy", POLICIES)
def test_a_setting_of_any_kind_and_length_is_obeyed_or_refused_in_one_sentence(policy):
    shared = (*OPTIONS, *ALIASES, "nosuch", "gen_length", "chat", "tokenizer")
    names = [name for name in settings_of(policy) if name not in shared]
    denoiser = denoiser_of("flat", "plain" if POLICIES[policy].head else "none")
    for name in (*names, *(shared if policy == "threshold" else ())):
        for value in LONG:
            given = {"gen_length": 2, name: value}
            value_or_sentence(lambda given=given: generate(denoiser, torch.tensor([[3, 2]]), policy, **given))


@pytest.mark.parametrize("value", LONG, ids=lambda value: type(value).__name__)
def test_a_policy_of_any_kind_and_length_is_refused_in_one_sentence(value):
    if value is not None:
        assert value_or_sentence(lambda: generate(denoiser_of("flat", "none"), torch.tensor([[3]]), value)) is None
