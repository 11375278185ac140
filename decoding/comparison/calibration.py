"""A calibrated dial as a file: what was promised for which decoder, and whether a call is that decoder.

Imports nothing heavy, so that a command judges the file before it loads anything.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from decoding.calls.request import Request, canonical, resolve
from decoding.comparison.arms import setting_of
from decoding.comparison.shift.exchangeable import Reference
from decoding.files.png import save_png
from models.checkpoints.json_files import read_object, require_sound, sealed
from models.complaints import shown

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NEUTRAL: Mapping[str, tuple[Any, ...]] = {
    "top_p": (1.0, None),
    "logits_eos_inf": (False, None),
    "confidence_eos_eot_inf": (False, None),
    "chat": (None,),
}
"""Options that change the text, and the values at which they do not: those that `calibrate.py` decodes with."""


@dataclass(frozen=True)
class Conditions:
    """The decoder that a promise is about: with any other value here it is another decoder.

    Attributes:
        policy: the policy with all its settings, the head apart, as Python writes it.
        model: fingerprint of the weights.
        head: fingerprint of the scoring head that the policy reads, or None.
        gen_length, block_length: of the canvas.
        use_cache: none, prefix or dual.
        temperature: of the draws.
        end_ids: ids that end an answer.
        dtype: number format of the weights.
        engine: what runs the forwards, None for the plain layers.
    """

    policy: str
    model: str
    head: str | None
    gen_length: int
    block_length: int
    use_cache: str
    temperature: float
    end_ids: Sequence[int]
    dtype: str
    engine: str | None

    @staticmethod
    def of(denoiser: Any, policy: Any, request: Request, end_ids: Sequence[int]) -> Conditions:
        """Those of a decode.

        Args:
            denoiser: the model.
            policy: the policy object.
            request: lengths and options of the call.
            end_ids: ids that end an answer.
        """
        from decoding.provenance import dtype_name, head_fingerprint

        head, engine = getattr(policy, "head", None), getattr(denoiser, "engine", None)
        return Conditions(
            policy=repr(policy),
            model=denoiser.fingerprint(),
            head=None if head is None else head_fingerprint(head),
            gen_length=request.gen_length,
            block_length=request.block_length,
            use_cache=request.options.get("use_cache", "none"),
            temperature=float(request.options.get("temperature", 0.0)),
            end_ids=list(end_ids),
            dtype=dtype_name(denoiser),
            engine=None if engine is None else type(engine).__name__,
        )


@dataclass(frozen=True)
class Calibration:
    """What `calibration.json` holds.

    Attributes:
        policy: name of the policy.
        settings: of the policy, the dial left out.
        dial: the setting that was tested.
        chosen: its value, of those that hold the one with the fewest rounds; None where none holds.
        bound: upper bound on the mean loss there, None where none holds.
        loss, max_loss, confidence: the promise.
        task: whose prompts they are.
        prompts: hash of the prompts.
        n: how many they are.
        checked: whether a checker judged the answers; else texts were compared.
        tested: every setting tested, from the careful end, with loss, bound, rounds and accuracy.
        conditions: the decoder.
        reference: what later prompts are compared with, see `decoding.comparison.shift.exchangeable`; None in files without it.
    """

    policy: str
    settings: Mapping[str, Any]
    dial: str
    chosen: float | None
    bound: float | None
    loss: str
    max_loss: float
    confidence: float
    task: str
    prompts: str
    n: int
    checked: bool
    tested: Sequence[Mapping[str, Any]]
    conditions: Conditions
    reference: Mapping[str, Any] | None = None

    @staticmethod
    def load(path: str | Path) -> Calibration:
        """Read a file that `calibrate.py` wrote.

        Raises:
            ValueError: for another file, and for one in which no setting holds.
        """
        try:
            found = read_object(Path(path))
            conditions = Conditions(**{f.name: found["conditions"][f.name] for f in fields(Conditions)})
            named = (f.name for f in fields(Calibration) if f.name in found or f.default is MISSING)
            values = {name: found[name] for name in named}
            _require_kinds({**asdict(conditions), **values})
            Reference.read(values.get("reference"))
            require_sound(found)
        except (ValueError, KeyError, TypeError) as error:
            cause = error.__cause__ or error
            reason = f"{type(cause).__name__} {cause}"
            raise ValueError(f"calibrated must be a file of calibrate.py, got {path} ({reason})") from error
        if values["chosen"] is None:
            raise ValueError(
                f"calibrated must hold a setting of {values['dial']} that kept the promise, got none in {path}"
            )
        return Calibration(**{**values, "conditions": conditions})

    def record(self, environment: Mapping[str, Any]) -> dict[str, Any]:
        """The file's content."""
        return sealed(json.loads(json.dumps({**asdict(self), "environment": dict(environment)})))

    @property
    def chosen_settings(self) -> dict[str, Any]:
        """The settings of the policy, the dial among them."""
        return {**self.settings, **({} if self.chosen is None else {self.dial: setting_of(self.dial, self.chosen)})}

    def require_task(self, task: str, path: str | Path) -> None:
        """Refuse prompts of another task than those that the promise is about.

        Raises:
            ValueError: naming both.
        """
        if task != self.task:
            raise ValueError(f"task must be {self.task} as calibrated in {path}, got {shown(task)}")

    def complete(self, policy: Any, given: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
        """Policy and keywords of a call, with what it left out as calibrated.

        Args:
            policy: a policy object, a name, or None.
            given: every keyword of the call, in any of the field's spellings.

        Raises:
            ValueError: for another policy, and for options that calibration does not know.
        """
        given = canonical(given)
        for name, neutral in NEUTRAL.items():
            if given.get(name) not in (None, *neutral):
                raise ValueError(f"{name} must be left out with calibrated, got {shown(given[name])}")
        conditions = self.conditions
        rest = {name: getattr(conditions, name) for name in ("gen_length", "block_length", "use_cache")}
        if policy is not None and not isinstance(policy, str):
            return policy, {**rest, **given}
        if policy not in (None, self.policy) and str(policy).replace("_", "-") != self.policy:
            raise ValueError(f"policy must be {self.policy} as calibrated, got {shown(policy)}")
        return self.policy, {**rest, **self.chosen_settings, **given}

    def require(self, call: Conditions, path: str | Path) -> None:
        """Refuse a call that is another decoder.

        Raises:
            ValueError: naming the first condition that differs.
        """
        for f in fields(Conditions):
            wanted, got = getattr(self.conditions, f.name), getattr(call, f.name)
            if wanted != got:
                raise ValueError(f"{f.name} must be {shown(wanted)} as calibrated in {path}, got {shown(got)}")


_NUMBERS = (
    *("chosen", "bound", "max_loss", "confidence", "temperature"),
    *("n", "gen_length", "block_length"),
)
_TEXTS = ("policy", "dial", "loss", "task", "prompts", "model", "head", "use_cache", "dtype", "engine")
_NULLS = ("chosen", "bound", "head", "engine")
_OF_A_ROW = ("value", "loss", "bound", "rounds")


def _require_kinds(values: Mapping[str, Any]) -> None:
    """Refuse values of a wrong kind, before one of them becomes a setting.

    Raises:
        TypeError: naming the first.
    """
    texts, numbers = {name: values[name] for name in _TEXTS}, {name: values[name] for name in _NUMBERS}
    wrong = [
        name for name, value in texts.items() if not (isinstance(value, str) or (value is None and name in _NULLS))
    ]
    wrong += [name for name, value in numbers.items() if not (_is_number(value) or (value is None and name in _NULLS))]
    ids, rows = values["end_ids"], values["tested"]
    wrong += ["settings"] if not isinstance(values["settings"], dict) else []
    wrong += ["end_ids"] if not isinstance(ids, list) or not all(type(one) is int for one in ids) else []
    sound = isinstance(rows, list) and all(
        isinstance(row, dict) and all(_is_number(row.get(name)) for name in _OF_A_ROW) for row in rows
    )
    if wrong or not sound or not isinstance(values["checked"], bool):
        name = [*wrong, *([] if sound else ["tested"]), "checked"][0]
        raise TypeError(f"of another kind of value in {name}")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def resolve_calibrated(path: str | Path | None, policy: Any, given: Mapping[str, Any]) -> Request:
    """What a call asks for, with what it left out as calibrated; as `decoding.calls.request.resolve` where there is no file."""
    return resolve(policy, given) if path is None else resolve(*Calibration.load(path).complete(policy, given))


def require_calibrated(
    path: str | Path | None, denoiser: Any, policy: Any, request: Request, end_ids: Sequence[int]
) -> None:
    """Refuse a call that is not the decoder of the file, where there is one.

    Args:
        path: file of `calibrate.py`, or None.
        denoiser, policy, request, end_ids: the call, as for `Conditions.of`.

    Raises:
        ValueError: naming the first condition that differs.
    """
    if path is not None:
        Calibration.load(path).require(Conditions.of(denoiser, policy, request, end_ids), path)


def plot(calibration: Calibration, file: Path) -> None:
    """Draw loss and bound of every setting tested against its rounds, as a PNG; needs matplotlib."""
    save_png(picture(calibration), file)


def picture(calibration: Calibration) -> Figure:
    """Loss and upper bound against mean rounds, the promise as a line, the setting chosen as a ring."""
    from matplotlib.figure import Figure

    rows = calibration.tested
    rounds = [row["rounds"] for row in rows]
    canvas = Figure(figsize=(7, 4.5), layout="constrained")
    title = f"{calibration.policy} on {calibration.task}, {calibration.n} prompts"
    axes = canvas.add_subplot(xlabel="rounds", ylabel=f"mean loss ({calibration.loss})", title=title)
    loss, bound = ([row[name] for row in rows] for name in ("loss", "bound"))
    axes.plot(rounds, loss, "o-", color="#0072b2", label="measured")
    axes.plot(rounds, bound, "v--", color="#d55e00", label=f"upper bound, confidence {calibration.confidence:g}")
    axes.axhline(calibration.max_loss, color="#555555", linewidth=1, label=f"promise {calibration.max_loss:g}")
    for row in rows:
        axes.annotate(f"{row['value']:g}", (row["rounds"], row["loss"]), textcoords="offset points", xytext=(0, -12))
        if row["value"] == calibration.chosen:
            axes.plot(
                [row["rounds"]], [row["bound"]], "o", markersize=14, fillstyle="none", color="#000000", label="chosen"
            )
    axes.legend()
    return canvas
