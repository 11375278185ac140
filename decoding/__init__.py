"""Decode masked diffusion language models in few rounds: `generate`, its result, and the policies.

Names load when they are first used, so that `decoding.names` can be read before torch is imported.
"""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from decoding.names import POLICIES

if TYPE_CHECKING:
    from decoding.api import generate
    from decoding.calls.answers import Answer
    from decoding.calls.many import generate_many
    from decoding.generation import Generation, Row
    from decoding.policy import Policy
    from decoding.policy_by_name import make_policy

__all__ = ["Answer", "Generation", "Policy", "Row", "generate", "generate_many", "make_policy"]

_HOME = dict.fromkeys(("Generation", "Row"), "decoding.generation") | {"generate": "decoding.api"}
_HOME |= {"Answer": "decoding.calls.answers", "generate_many": "decoding.calls.many"}
_HOME |= {"Policy": "decoding.policy", "make_policy": "decoding.policy_by_name"}
_HOME |= {kind: module for module, _, kind in (policy.home.partition(":") for policy in POLICIES.values())}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'decoding' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


def _require_sibling() -> None:
    here, spec = Path(__file__).resolve().parents[1], find_spec("models")
    found = None if spec is None or spec.origin is None else Path(spec.origin).resolve().parents[1]
    if found != here:
        raise ImportError(f"package decoding in {here} needs the package models beside it, got {found or 'none'}")


_require_sibling()
