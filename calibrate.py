"""Choose a policy's dial with a promise: python calibrate.py --policy threshold --task countdown3 --max_loss .01"""

from typing import Any, Literal

from train.commands.calibrate import check_calibrate, run_calibrate
from train.commands.command_line import GOES_ON, run


def calibrate(
    policy: str,
    task: str,
    prompts: str | None = None,
    num_prompts: int = 500,
    loss: Literal["flip", "difference"] = "flip",
    max_loss: float = 0.01,
    confidence: float = 0.95,
    dial: str | None = None,
    values: str | None = None,
    settings: dict[str, Any] | None = None,
    gen_length: int | None = None,
    block_length: int | None = None,
    use_cache: Literal["none", "prefix", "dual"] = "none",
    temperature: float = 0.0,
    model: str | None = None,
    head: str | None = None,
    adapter: str | None = None,
    out: str = "checkpoints/runs/calibrate",
    batch_size: int | None = None,
    seed: int = 1,
    device: str | None = None,
    dtype: Literal["float32", "bfloat16", "float16"] | None = None,
    run_code: bool = False,
) -> None:
    """Choose the dial of a policy so that its mean loss against the careful decode is bounded; see docs/calibration.md.

    Args:
        policy: which positions to commit when.
        task: sudoku, countdown3, gsm8k, ...: sets the lengths and checks the answers.
        prompts: file of the task's prompts, or `hub`; default dev prompts from the generator.
        num_prompts: prompts at most; too few are refused with the number that is needed.
        loss: flip, careful right and arm wrong (or another text, without a checker); or difference of the accuracies.
        max_loss: the mean loss promised, in (0, 1).
        confidence: of the promise, in (0, 1).
        dial: the setting that is tested; default the policy's own.
        values: of the dial, with commas between them.
        settings: the policy's others, one by one as --settings.branches 2 or as one JSON object.
        gen_length: positions to fill; default the task's.
        block_length: default the task's.
        use_cache: of keys and values.
        temperature: 0 takes the most likely token.
        model: checkpoint folder or hub id; default the shipped model.
        head: folder of a scoring head; default the one that ships for the model.
        adapter: folder of a PEFT LoRA adapter, merged into the model.
        out: folder for calibration.json, a picture (with matplotlib) and the lines of every run.
        batch_size: prompts at a time; default 16 on the CPU, 512 on a GPU.
        seed: of prompts and random policies; compare.py chooses settings with seed 0.
        device: cpu, cuda, ...; default the GPU if there is one.
        dtype: of the weights; default float32 on the CPU, the checkpoint's own elsewhere.
        run_code: let the checkers of humaneval and mbpp run the model's code on this machine.
    """
    from decoding.comparison.risk_control import RiskControl

    promise = RiskControl(loss, max_loss, confidence)
    canvas = {
        "gen_length": gen_length,
        "block_length": block_length,
        "use_cache": use_cache,
        "temperature": temperature,
    }
    where: dict[str, Any] = {"prompts": prompts, "num_prompts": num_prompts, "seed": seed, "run_code": run_code}
    where |= {"dial": dial, "values": values, "model": model, "head": head, "adapter": adapter}
    call = check_calibrate(policy, task, promise, {**canvas, **(settings or {})}, **where)
    print(run_calibrate(call, out=out, batch_size=batch_size, seed=seed, device=device, dtype=dtype))


if __name__ == "__main__":
    run(calibrate, kept=GOES_ON)
