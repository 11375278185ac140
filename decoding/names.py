"""The names of policies as people type them, and where the class of each is.

Imports nothing heavy, so that a command judges its arguments before it loads anything.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from importlib import import_module
from typing import Any

DEFAULT_POLICY = "learned"


@dataclass(frozen=True)
class NamedPolicy:
    """A policy as people name it.

    Attributes:
        home: where the class is, "module:Class".
        fixed: settings that the name fixes.
        dial: the setting that trades rounds for accuracy, of `decoding.comparison.arms.DIALS`; "" where it has none.
        head: whether the class has a field `head`, which gets the denoiser's scoring head.
    """

    home: str
    fixed: Mapping[str, Any] = field(default_factory=dict)
    dial: str = ""
    head: bool = False


_HERE = "decoding.policies"
POLICIES: Mapping[str, NamedPolicy] = {
    "sequential": NamedPolicy(f"{_HERE}.quota:Sequential"),
    "random": NamedPolicy(f"{_HERE}.quota:Sequential", {"order": "random"}),
    "left-to-right": NamedPolicy(f"{_HERE}.quota:Sequential", {"order": "left_to_right"}),
    "quota": NamedPolicy(f"{_HERE}.quota:Quota", dial="steps"),
    "dream-quota": NamedPolicy(f"{_HERE}.dream_quota:DreamQuota", dial="steps"),
    "threshold": NamedPolicy(f"{_HERE}.threshold:Threshold", dial="threshold"),
    "margin": NamedPolicy(f"{_HERE}.threshold:MarginThreshold", dial="margin"),
    "entropy": NamedPolicy(f"{_HERE}.threshold:EntropyThreshold", dial="entropy_threshold"),
    "factor": NamedPolicy(f"{_HERE}.bounds:Factor", dial="factor"),
    "entropy-bound": NamedPolicy(f"{_HERE}.bounds:EntropyBound", dial="entropy_bound"),
    "risk-sum": NamedPolicy(f"{_HERE}.bounds:RiskSum", dial="risk_bound"),
    "ete": NamedPolicy(f"{_HERE}.ete:BeamETE", dial="threshold"),
    "random-parity": NamedPolicy(f"{_HERE}.ete:RandomParity", dial="threshold"),
    "lopa": NamedPolicy(f"{_HERE}.lopa:LoPA", dial="threshold"),
    "imh": NamedPolicy(f"{_HERE}.imh:IndependentMH", dial="proposals"),
    "draft-verify": NamedPolicy(f"{_HERE}.remask:DraftVerify", dial="draft"),
    "remask-lowest": NamedPolicy(f"{_HERE}.remask:RemaskLowest", dial="threshold"),
    "learned": NamedPolicy(f"{_HERE}.learned:Learned", dial="risk_bound", head=True),
    "learned-ete": NamedPolicy(f"{_HERE}.learned_ete:LearnedETE", dial="risk_bound", head=True),
    "learned-parity": NamedPolicy(f"{_HERE}.learned_ete:LearnedParity", dial="threshold", head=True),
    "verified": NamedPolicy(f"{_HERE}.verified:Verified", head=True),
    "wino": NamedPolicy(f"{_HERE}.field.wino:WINO", dial="threshold"),
    "dawn": NamedPolicy(f"{_HERE}.field.dawn:DAWN", dial="tau_low"),
    "info-gain": NamedPolicy(f"{_HERE}.field.info_gain:InfoGain", dial="threshold"),
    "klass": NamedPolicy(f"{_HERE}.field.klass:KLASS", dial="threshold"),
    "freedave": NamedPolicy(f"{_HERE}.field.freedave:FreeDave"),
    "frechet": NamedPolicy(f"{_HERE}.field.frechet:FrechetProfile", dial="frechet_margin"),
    "saber": NamedPolicy(f"{_HERE}.field.saber:Saber", dial="least"),
    "slow-fast": NamedPolicy(f"{_HERE}.field.slow_fast:SlowFast", dial="threshold"),
    "pc-sampler": NamedPolicy(f"{_HERE}.field.pc_sampler:PCSampler", dial="per_round"),
}
"""The policies of this project; a policy of one's own is named `package.module:Class`."""


def find_policy(name: str, subject: str = "policy") -> NamedPolicy:
    """The policy of a name, or of one's own at `package.module:Class`, whose module is imported.

    Args:
        name: of POLICIES, underscores taken for hyphens, or `package.module:Class`.
        subject: what the complaint calls it.

    Raises:
        ValueError: in one sentence, for an unknown name or a place without such a class.
    """
    from models.complaints import cut, shown  # here, so that `decoding` can say first that no `models` lies beside it

    if not isinstance(name, str):
        raise ValueError(f"{subject} must be a name, got {shown(name)}")
    if name.replace("_", "-") in POLICIES:
        return POLICIES[name.replace("_", "-")]
    module, colon, kind = name.partition(":")
    if not colon:
        known = f"{', '.join(POLICIES)}, or package.module:Class"
        raise ValueError(f"{subject} must be one of {known}, got {shown(name)}{nearest(name, POLICIES)}")
    try:
        found = getattr(import_module(module), kind)
    except (ImportError, AttributeError, ValueError, TypeError) as error:
        raise ValueError(
            f"{subject} must be a class that can be imported, got {shown(name)} ({cut(str(error))})"
        ) from error
    if not hasattr(found, "__dataclass_fields__") or not hasattr(found, "propose"):
        raise ValueError(f"{subject} must be a Policy, a dataclass with `propose`, got {shown(name)}")
    return NamedPolicy(name, head="head" in found.__dataclass_fields__)


def nearest(name: str, known: Collection[str]) -> str:
    """A question about the known name that is most like a misspelt one; "" where none is like it."""
    found = get_close_matches(name, known, n=1, cutoff=0.7)
    return f": did you mean {found[0]}?" if found else ""
