"""The registry of policies: the names that people type, where the class of each is, and its dial.

Imports nothing heavy, so that a command judges its arguments before it loads anything.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
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
        dial: the setting that trades rounds for accuracy, of DIALS; "" where it has none.
        head: whether the class has a field `head`, which gets the denoiser's scoring head.
        draws: whether it draws at temperature 0 too, whatever its order.
    """

    home: str
    fixed: Mapping[str, Any] = field(default_factory=dict)
    dial: str = ""
    head: bool = False
    draws: bool = False


_HERE = "decoding.policies"
POLICIES: Mapping[str, NamedPolicy] = {
    "sequential": NamedPolicy(f"{_HERE}.quota:Sequential"),
    "random": NamedPolicy(f"{_HERE}.quota:Sequential", {"order": "random"}),
    "left-to-right": NamedPolicy(f"{_HERE}.quota:Sequential", {"order": "left_to_right"}),
    "quota": NamedPolicy(f"{_HERE}.quota:Quota", dial="steps"),
    "dream-quota": NamedPolicy(f"{_HERE}.quota:DreamQuota", dial="steps"),
    "threshold": NamedPolicy(f"{_HERE}.threshold:Threshold", dial="threshold"),
    "margin": NamedPolicy(f"{_HERE}.threshold:MarginThreshold", dial="margin"),
    "entropy": NamedPolicy(f"{_HERE}.threshold:EntropyThreshold", dial="entropy_threshold"),
    "factor": NamedPolicy(f"{_HERE}.bounds:Factor", dial="factor"),
    "entropy-bound": NamedPolicy(f"{_HERE}.bounds:EntropyBound", dial="entropy_bound"),
    "risk-sum": NamedPolicy(f"{_HERE}.bounds:RiskSum", dial="risk_bound"),
    "ete": NamedPolicy(f"{_HERE}.ete:BeamETE", dial="threshold"),
    "random-parity": NamedPolicy(f"{_HERE}.ete:RandomParity", dial="threshold", draws=True),
    "lopa": NamedPolicy(f"{_HERE}.lopa:LoPA", dial="threshold"),
    "imh": NamedPolicy(f"{_HERE}.imh:IndependentMH", dial="proposals", draws=True),
    "draft-verify": NamedPolicy(f"{_HERE}.remask:DraftVerify", dial="draft"),
    "remask-lowest": NamedPolicy(f"{_HERE}.remask:RemaskLowest", dial="threshold"),
    "learned": NamedPolicy(f"{_HERE}.learned:Learned", dial="risk_bound", head=True),
    "learned-ete": NamedPolicy(f"{_HERE}.learned_ete:LearnedETE", dial="risk_bound", head=True),
    "learned-parity": NamedPolicy(f"{_HERE}.learned_ete:LearnedParity", dial="threshold", head=True),
    "verified": NamedPolicy(f"{_HERE}.verified:Verified", head=True),
    "wino": NamedPolicy(f"{_HERE}.field.wino:WINO", dial="threshold"),
    "dawn": NamedPolicy(f"{_HERE}.field.dawn:DAWN", dial="tau_low"),
    "info-gain": NamedPolicy(f"{_HERE}.field.info_gain:InfoGain", dial="threshold", draws=True),
    "klass": NamedPolicy(f"{_HERE}.field.klass:KLASS", dial="threshold"),
    "freedave": NamedPolicy(f"{_HERE}.field.freedave:FreeDave"),
    "frechet": NamedPolicy(f"{_HERE}.field.frechet:FrechetProfile", dial="frechet_margin"),
    "saber": NamedPolicy(f"{_HERE}.field.saber:Saber", dial="least"),
    "slow-fast": NamedPolicy(f"{_HERE}.field.slow_fast:SlowFast", dial="threshold"),
    "pc-sampler": NamedPolicy(f"{_HERE}.field.pc_sampler:PCSampler", dial="per_round"),
}
"""The policies of this project; a policy of one's own is named `package.module:Class`."""


@dataclass(frozen=True)
class Dial:
    """A setting that trades rounds for accuracy.

    Attributes:
        careful_is_high: whether its high values are the careful ones.
        values: from the careful end; of `steps` as shares of gen_length.
    """

    careful_is_high: bool
    values: tuple[float, ...]

    def careful_first(self, values: Sequence[float]) -> tuple[float, ...]:
        """The values from the careful end."""
        return tuple(sorted(values, reverse=self.careful_is_high))


STEPS = "steps"
WHOLE = (STEPS, "proposals", "least", "per_round", "draft_steps", "canvases")
"""Dials that are whole numbers."""

DIALS: Mapping[str, Dial] = {
    "threshold": Dial(True, (0.9997, 0.999, 0.995, 0.98, 0.95, 0.9, 0.8, 0.6)),
    "margin": Dial(True, (0.9999, 0.9994, 0.997, 0.97, 0.9, 0.75, 0.5, 0.2)),
    "entropy_threshold": Dial(False, (0.001, 0.005, 0.02, 0.06, 0.15, 0.3, 0.45, 0.8)),
    "factor": Dial(False, (0.001, 0.004, 0.01, 0.03, 0.1, 0.3, 0.8, 1.6)),
    "entropy_bound": Dial(False, (0.00003, 0.0003, 0.0015, 0.006, 0.02, 0.1, 0.3, 0.75)),
    "risk_bound": Dial(False, (0.0002, 0.002, 0.006, 0.02, 0.06, 0.12, 0.25, 0.5)),
    "draft": Dial(True, (0.99, 0.95, 0.9, 0.8, 0.7, 0.6, 0.5, 0.3)),
    "tau_low": Dial(True, (0.9, 0.85, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3)),
    "proposals": Dial(True, (16.0, 8.0, 4.0, 2.0, 1.0)),
    "frechet_margin": Dial(True, (0.9998, 0.998, 0.98, 0.94, 0.88, 0.75, 0.5, 0.02)),
    "least": Dial(False, (1.0, 2.0, 3.0, 4.0, 6.0, 8.0)),
    "per_round": Dial(False, (1.0, 2.0, 3.0, 4.0, 6.0, 8.0)),
    STEPS: Dial(True, (1.0, 0.75, 0.5, 0.375, 0.25, 0.1875, 0.125)),
}
"""The dials known by name, with values for any task."""


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


def may_draw(name: str, settings: Mapping[str, Any]) -> bool:
    """Whether a policy may draw at temperature 0, as far as its name tells: one of one's own may.

    Args:
        name: of POLICIES, or `package.module:Class`.
        settings: of the policy.
    """
    named = find_policy(name)
    return ":" in name or named.draws or {**named.fixed, **settings}.get("order") == "random"


def nearest(name: str, known: Collection[str]) -> str:
    """A question about the known name that is most like a misspelt one; "" where none is like it."""
    found = get_close_matches(name, known, n=1, cutoff=0.7)
    return f": did you mean {found[0]}?" if found else ""
