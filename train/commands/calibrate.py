"""A calibration from the command line: judged before torch is imported, then decoded, tested and written."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from decoding.calls.request import resolve
from decoding.checked_names import needs_head, uses_head
from decoding.comparison.arms import Arm, dial_values, find_dial, setting_of
from decoding.comparison.problems import CheckedProblems, Problems, judge_of
from decoding.names import DIALS, find_policy
from models.complaints import shown
from models.ranks import find_ranks
from train.commands.calibration_file import report, summarise
from train.commands.command_line import keep_options
from train.commands.compare import require_at_least
from train.commands.folders import MODEL, check_adapter, check_model, find_head, or_shipped
from train.tasks import Example, Task, get, require_permission
from train.tasks.problems import draw

if TYPE_CHECKING:
    from decoding.comparison.risk_control import RiskControl
    from models.denoiser import Denoiser

FILE = "calibration.json"


@dataclass(frozen=True)
class CalibrateCall:
    """What is calibrated on what, as far as that can be judged without torch.

    Attributes:
        arm: the policy with its dial, values from the careful end.
        control: what is promised.
        prompts: of the task, as dev prompts.
        checked: whether a checker judges the answers; else texts are compared.
        model: checkpoint folder or hub id.
        head: folder of the scoring head that is named or that the policy reads, or None.
        adapter: folder of a PEFT adapter that is merged into the model, or None.
    """

    arm: Arm
    control: RiskControl
    prompts: CheckedProblems
    checked: bool
    model: str
    head: str | None
    adapter: str | None


def check_calibrate(
    policy: str,
    task: str,
    control: RiskControl,
    options: Mapping[str, Any],
    *,
    dial: str | None = None,
    values: str | None = None,
    prompts: str | None = None,
    num_prompts: int = 500,
    model: str | None = None,
    head: str | None = None,
    adapter: str | None = None,
    seed: int = 1,
    run_code: bool = False,
) -> CalibrateCall:
    """Refuse what cannot be calibrated, and fill in what was left out.

    Args:
        policy: name.
        task: name of the task.
        control: what is promised.
        options: lengths, cache, temperature and settings of the policy, None for those left out.
        dial: the setting that is tested; by default the policy's own.
        values: of the dial, with commas between them; by default those of DIALS.
        prompts: file of the task's prompts, or `hub`; by default dev prompts from the generator.
        num_prompts: at most.
        model: checkpoint folder or hub id; by default the one that ships.
        head: folder of a scoring head; by default the one that ships, with the model that ships.
        adapter: folder of a PEFT LoRA adapter, merged into the model.
        seed: of the generator.
        run_code: let the checker run what the model writes, where it has to.

    Raises:
        ValueError: in one sentence with name, rule and value.
    """
    require_enough(control, num_prompts)
    kind = get(task, run_code=run_code)
    options = {name: value for name, value in options.items() if value is not None}
    options = {"gen_length": kind.gen_length, "block_length": kind.block_length} | options
    check_model(or_shipped(model, MODEL), "")
    check_adapter(adapter)
    named, head = head is not None, find_head(model, head, adapter)
    arm, canvas = make_arm(policy, options, dial, values)
    which = (arm.policy, arm.settings, find_policy(policy).head)
    if head is None and needs_head(*which):
        raise ValueError(f"head must be a folder with head.safetensors for policy {policy}, got none")
    fitted = head is not None and uses_head(*which)
    head = head if named or fitted else None  # one that is named must fit the model in any case
    examples = find_prompts(kind, prompts, num_prompts, seed=seed, fitted=fitted)
    require_enough(control, len(examples))
    problems, checked = make_problems(kind, examples, canvas)
    require_judged(control, checked, run_code=run_code, task=kind)
    return CalibrateCall(arm, control, problems, checked, or_shipped(model, MODEL), head, adapter)


def require_enough(control: RiskControl, prompts: int) -> None:
    """Refuse so few prompts that not even a dial without any loss could keep the promise.

    Raises:
        ValueError: with the number that is needed.
    """
    needed = control.prompts_needed()
    if needed is None or prompts < needed:
        promise = f"a {control.loss} loss of {control.max_loss:g} at confidence {control.confidence:g}"
        raise ValueError(f"num_prompts must be at least {needed} to promise {promise}, got {prompts}")


def require_judged(control: RiskControl, checked: bool, *, task: Task, run_code: bool) -> None:
    """Refuse a loss that needs a checker where there is none, and a checker that may not run.

    Args:
        control: what is promised.
        checked: whether a checker judges the answers.
        task: whose checker it is.
        run_code: let it run what the model writes.

    Raises:
        ValueError: in one sentence.
    """
    from decoding.comparison.risk_control import require_checker

    require_checker(control.loss, checked)
    if checked:
        require_permission(task, run_code)


@dataclass(frozen=True)
class Canvas:
    """The canvas of a call and how its tokens are drawn."""

    gen_length: int
    block_length: int
    temperature: float
    use_cache: str


def make_arm(policy: str, options: Mapping[str, Any], dial: str | None, values: str | None) -> tuple[Arm, Canvas]:
    """The policy with its dial from the careful end, every value judged, and its canvas.

    Args:
        policy: name.
        options: lengths, cache, temperature and settings, the dial not among them.
        dial: name of the dial, or None for the policy's own.
        values: of the dial, with commas between them, or None for those of DIALS.

    Raises:
        ValueError: for a setting or a value that the policy refuses as far as its name tells.
    """
    name = policy if ":" in policy else policy.replace("_", "-")
    find_policy(name)
    dial = find_dial(name, options) if dial is None else dial
    if dial in options:
        raise ValueError(f"settings must leave out the dial {dial}, which is tested, got {shown(options[dial])}")
    request = resolve(name, options)
    canvas = Canvas(
        request.gen_length,
        request.block_length,
        request.options.get("temperature", 0.0),
        request.options.get("use_cache", "none"),
    )
    grid = (
        dial_values(dial, gen_length=canvas.gen_length, block_length=canvas.block_length)
        if values is None
        else read_values(dial, values)
    )
    for value in grid:
        resolve(name, {**options, dial: setting_of(dial, value)})
    settings = {key: value for key, value in request.settings.items() if key != dial}
    return Arm(name, "learned" if find_policy(name).head else "headless", name, dial, grid, settings=settings), canvas


def read_values(dial: str, values: str) -> tuple[float, ...]:
    """The numbers of a line with commas, from the careful end where the dial is known, else in their order.

    Raises:
        ValueError: for what is no number, or one that is there twice.
    """
    try:
        numbers = [float(one) for one in values.split(",")]
    except ValueError:
        raise ValueError(f"values must be numbers with commas between them, got {shown(values)}") from None
    if not all(map(math.isfinite, numbers)) or len(set(numbers)) < len(numbers):
        raise ValueError(f"values must be finite and differ from each other, got {shown(values)}")
    return DIALS[dial].careful_first(numbers) if dial in DIALS else tuple(numbers)


def find_prompts(task: Task, prompts: str | None, count: int, *, seed: int, fitted: bool) -> list[Example]:
    """Different prompts of a task: of a file, or dev prompts from its generator.

    Args:
        task: whose they are.
        prompts: a file, or `hub`; None draws them, or takes a benchmark's from the hub.
        count: at most so many.
        seed: of the generator.
        fitted: leave out the train split of a benchmark's file, which a head may have been fitted on.
    """
    if prompts is None and task.make is not None:
        return draw(task, "dev", count, seed=seed)
    found = {example.prompt: example for example in task.read(prompts or "hub")}
    hidden = fitted and task.make is None
    kept = (e for e in found.values() if not hidden or task.split_of(e.prompt) != "train")
    return list(itertools.islice(kept, count))


def make_problems(task: Task, examples: Sequence[Example], canvas: Canvas) -> tuple[CheckedProblems, bool]:
    """The prompts with their checker, and whether it can judge them; none of them is ever right where it cannot.

    Raises:
        ValueError: where it can judge some of them only.
    """
    judged = sum(task.judges(example) for example in examples)
    if judged not in (0, len(examples)):
        raise ValueError(f"prompts of task {task.name} must all come with answers or none, got {judged} with")
    known = {example.prompt: example for example in examples}
    problems = Problems(
        task=task.name,
        dev=tuple(known),
        test=(),
        gen_length=canvas.gen_length,
        block_length=canvas.block_length,
        temperature=canvas.temperature,
        use_cache=canvas.use_cache,
        judge=judge_of(judged, [(e.response, e.answer) for e in known.values()]),
    )
    return CheckedProblems(problems, lambda p, text: judged > 0 and task.check(known[p], text)), judged > 0


def run_calibrate(
    call: CalibrateCall,
    *,
    out: str,
    batch_size: int | None,
    seed: int,
    device: str | None,
    dtype: str | None,
) -> str:
    """Decode the prompts, test the dial, write calibration.json and a picture, and say what was found.

    Args:
        call: what `check_calibrate` let through.
        out: folder of the results and of the lines that a later call goes on with.
        batch_size: prompts at a time.
        seed: of random policies.
        device: where to run; by default the GPU if there is one.
        dtype: of the weights; by default as in `models.load`.

    Raises:
        ValueError: for settings that the policy refuses, and for too few prompts that fit the model.
    """
    require_at_least(1, batch_size=batch_size)

    import models
    from decoding.comparison.calibration import plot
    from decoding.comparison.runner import control_dial, make_runner, refuse_settings
    from decoding.provenance import environment, write_json

    denoiser = models.load(call.model, head=call.head, dtype=dtype, device=device, adapter=call.adapter)
    checked, long = that_fit(call.prompts, denoiser)
    require_enough(call.control, len(checked.problems.dev))
    refuse_settings([call.arm], checked.problems.task, denoiser, {}, points=0, seed=seed)
    how: dict[str, Any] = {"out": Path(out), "heads": None, "batch_size": batch_size, "seed": seed, "progress": True}
    runner = make_runner(denoiser, checked.problems, checked.check, **how)
    keep_options()
    tested = control_dial(runner, call.arm, call.control, checked=call.checked)
    found = summarise(call.arm, call.control, runner, [asdict(dial) for dial in tested], checked=call.checked)
    drawn = find_spec("matplotlib") is not None
    if find_ranks().first:
        write_json(Path(out) / FILE, found.record(environment(device=denoiser.device, seed=seed)), allow_nan=False)
        if drawn:
            plot(found, Path(out) / "calibration.png")
    said = [f"left out: {long} prompts too long for the model"] if long else []
    said += [] if drawn else ["no picture: matplotlib is not installed"]
    return "\n".join([report(found, call.control), *said, f"written to {Path(out) / FILE}"])


def that_fit(checked: CheckedProblems, denoiser: Denoiser) -> tuple[CheckedProblems, int]:
    """The prompts for which the model has positions enough, and how many others there were."""
    from decoding.prompts import leave_room

    problems = checked.problems
    fits = leave_room(problems.dev, denoiser, problems.gen_length)
    kept = tuple(itertools.compress(problems.dev, fits))
    return replace(checked, problems=replace(problems, dev=kept)), len(fits) - len(kept)
