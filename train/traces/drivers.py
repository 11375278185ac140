"""The policies that lead through the states of a collection, from what a config says of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

from decoding.comparison.arms import BLOCK_LENGTH

if TYPE_CHECKING:
    from decoding.policy import Policy
    from models.denoiser import Denoiser
    from models.heads.scoring_head import ScoringHead


def make_drivers(
    drivers: Mapping[str, Mapping[str, Any]], denoiser: Denoiser, head: ScoringHead | None
) -> dict[str, Policy]:
    """The policies that a config names; learned ones get the head."""
    if head is not None:
        cast(Any, denoiser).put_on(head)
    settings = {name: {k: v for k, v in driver.items() if k != BLOCK_LENGTH} for name, driver in drivers.items()}
    return {name: policy_of(driver, denoiser) for name, driver in settings.items()}


def policy_of(driver: Mapping[str, Any], denoiser: Denoiser) -> Policy:
    """The policy that a driver names, with its settings."""
    from decoding.api import make_policy

    return make_policy(driver["policy"], {name: value for name, value in driver.items() if name != "policy"}, denoiser)
