"""`--model_args` of lm-evaluation-harness in both dialects of the field, judged before torch is imported."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from decoding.calls.request import Request, canonical, resolve
from decoding.calls.spellings import ALIASES
from decoding.checked_names import needs_head, uses_head
from decoding.names import DEFAULT_POLICY, find_policy
from models.complaints import shown
from train.commands.command_line import shipped
from train.commands.folders import MODEL, check_adapter, check_model, find_head
from train.commands.generate import by_default
from train.commands.options.policy_settings import check_settings

GEN_LENGTH = 256
SPELLINGS = {
    "model_path": "pretrained",
    "model": "pretrained",
    "peft": "adapter",
    "lora": "adapter",
    "mc_num": "samples",
    "is_check_greedy": "check_greedy",
    "torch_dtype": "dtype",
    "max_gen_toks": "gen_length",
    **{spelling: name for spelling, name in ALIASES.items() if name == "gen_length"},
}
"""Names that others give to arguments of ours."""
WITHOUT_EFFECT = {
    "cfg": (0, 0.0, None),
    "trust_remote_code": (True, False, None),
    "show_speed": (True, False, None),
    "nll_type": ("mc", None),
    "max_batch_size": (None,),
    "parallelize": (False, None),
}
"""Arguments of others that are taken at these values, which change nothing here."""


@dataclass(frozen=True)
class Evaluation:
    """A model to be evaluated, as far as that can be judged without torch.

    Attributes:
        model: checkpoint folder or hub id.
        head, adapter: folders, or None.
        policy: name, or None for the default.
        settings: of the policy and of every policy, in the field's spellings.
        gen_length: in place of the tasks' own, or None.
        batch_size: rows at a time; None takes what the memory holds.
        device, dtype: as in `models.load`.
        samples: Monte-Carlo draws of a likelihood, at least 1.
        check_greedy: decode every scored continuation to say whether it is the model's own.
        long: whether contexts that leave too few positions are refused, or cut at their beginning.
        add_bos: put the tokenizer's BOS before every context.
        escape_until: ignore the tasks' stop strings.
        save_dir: folder for one line a sample, from which a later run goes on, or None.
        seed: of every draw.
    """

    model: str
    head: str | None = None
    adapter: str | None = None
    policy: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    gen_length: int | None = None
    batch_size: int | None = None
    device: str | None = None
    dtype: str | None = None
    samples: int = 128
    check_greedy: bool = False
    long: Literal["refuse", "cut"] = "refuse"
    add_bos: bool = False
    escape_until: bool = False
    save_dir: str | None = None
    seed: int = 0

    def request(self, gen_length: int | None = None, temperature: float = 0.0) -> Request:
        """How a group of contexts is decoded.

        Args:
            gen_length: that the task asks for, where none is given; it grows to whole blocks.
            temperature: that the task asks for, where none is given.

        Raises:
            ValueError: for settings that contradict each other.
        """
        length = self.gen_length or gen_length or GEN_LENGTH
        block = canonical(self.settings).get("block_length")
        if self.gen_length is None and isinstance(block, int) and block > 0:
            length = -(-length // block) * block
        given = {"temperature": temperature, **self.settings, "gen_length": length}
        request = resolve(self.policy, given)
        if self.policy is None and request.policy == DEFAULT_POLICY:
            return by_default(request, given, self.head, None)
        return request


def judge_arguments(given: Mapping[str, Any]) -> Evaluation:
    """Read the arguments, and refuse what cannot be evaluated.

    Args:
        given: names and values as the harness hands them over; strings that spell numbers, truth values or None become those.

    Raises:
        ValueError: in one sentence with name, rule and value.
    """
    values: dict[str, Any] = {}
    for spelling, text in given.items():
        name, value = SPELLINGS.get(spelling, spelling), as_value(text)
        if name in WITHOUT_EFFECT:
            if value not in WITHOUT_EFFECT[name]:
                raise ValueError(f"{spelling} must be {shown(WITHOUT_EFFECT[name][0])} here, got {shown(value)}")
        elif name in values and values[name] != value:
            raise ValueError(f"{spelling} must agree with {name}, got {shown(value)} and {shown(values[name])}")
        else:
            values[name] = value
    known = {
        name: values.pop(name)
        for name in ("policy", "gen_length", "device", "dtype", "samples", "seed")
        if name in values
    }
    known = {name: value for name, value in known.items() if value is not None}
    paths = {name: values.pop(name, None) for name in ("pretrained", "head", "adapter", "save_dir")}
    flags: dict[str, Any] = {name: _flag(name, values.pop(name, False)) for name in ("check_greedy", "escape_until")}
    flags["add_bos"] = _flag("add_bos_token", values.pop("add_bos_token", False))
    long: Any = "cut" if values.pop("truncation", None) is True else values.pop("long", "refuse")
    batch = values.pop("batch_size", None)
    batch = None if batch is None or str(batch).startswith("auto") else batch
    if long not in ("refuse", "cut"):
        raise ValueError(f"long must be refuse or cut, got {shown(long)}")
    for name, value in (("batch_size", batch), *((name, known.get(name)) for name in ("samples", "gen_length"))):
        if value is not None and (not isinstance(value, int) or value < 1):
            raise ValueError(f"{name} must be a whole number of at least 1, got {shown(value)}")
    evaluation = Evaluation(
        model=str(shipped(MODEL)) if paths["pretrained"] is None else str(paths["pretrained"]),
        head=paths["head"],
        adapter=paths["adapter"],
        settings={name: value for name, value in values.items() if value is not None},
        batch_size=batch,
        long=long,
        save_dir=paths["save_dir"],
        **known,
        **flags,
    )
    return _checked(evaluation, paths["pretrained"])


def _checked(evaluation: Evaluation, named: str | None) -> Evaluation:
    """The evaluation with the head that it needs."""
    check_model(evaluation.model, "")
    check_adapter(evaluation.adapter)
    request, given = evaluation.request(), evaluation.head is not None
    if _reads_head(request) or evaluation.policy is None or given:
        evaluation = replace(evaluation, head=find_head(named, evaluation.head, evaluation.adapter))
        request = evaluation.request()
    reads = find_policy(request.policy).head
    if evaluation.head is None and needs_head(request.policy, request.settings, reads):
        raise ValueError(f"head must be a folder with head.safetensors for policy {request.policy}, got None")
    check_settings(request.policy, request.settings)
    return evaluation if given or _reads_head(request) else replace(evaluation, head=None)


def _reads_head(request: Request) -> bool:
    return uses_head(request.policy, request.settings, find_policy(request.policy).head)


def as_value(text: Any) -> Any:
    """A string that spells a number, a truth value or None as that; anything else as it is."""
    if not isinstance(text, str):
        return text
    word = {"true": True, "false": False, "none": None, "null": None}.get(text.strip().lower(), text)
    if not isinstance(word, str):
        return word
    try:
        value = ast.literal_eval(text.strip())
    except (ValueError, SyntaxError):
        return text
    return value if isinstance(value, int | float) else text


def _flag(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"{name} must be true or false, got {shown(value)}")
    return value
