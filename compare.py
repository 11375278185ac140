"""Compare decoders on the same prompts: python compare.py --config configs/compare/default.yaml"""

from typing import Any, Literal

from decoding.comparison.arms import Arm
from train.commands.calibrated_arm import dial_control, with_calibrated
from train.commands.command_line import GOES_ON, run
from train.commands.compare import check_compare, kept_replays, run_compare


def compare(
    catalogue: list[Arm],
    task: str = "sudoku,multiplication",
    prompts: str | None = None,
    arms: str | None = None,
    num_prompts: int = 64,
    num_dev: int = 32,
    gen_length: int | None = None,
    block_length: int | None = None,
    use_cache: Literal["none", "prefix", "dual"] | None = None,
    tuning: int = 0,
    parity: int = 0,
    model: str | None = None,
    head: str | None = None,
    adapter: str | None = None,
    calibrated: str | None = None,
    choose: Literal["estimate", "calibrated"] = "estimate",
    out: str = "checkpoints/runs/compare",
    batch_size: int | None = None,
    seed: int = 0,
    device: str | None = None,
    dtype: Literal["float32", "bfloat16", "float16"] | None = None,
    tf32: bool = False,
    run_code: bool = False,
    check: str | None = None,
    replays: int | None = None,
    report: bool = True,
) -> None:
    """Compare decoders on the same prompts, by accuracy against rounds; a run that was stopped goes on where it was.

    Args:
        catalogue: the arms, declared in a config.
        task: one or more tasks, with commas between them; `text` for prompts of one's own.
        prompts: file of test prompts, for one task; default generated, or from the hub for a benchmark.
        arms: names of the arms to run, with commas between them; default all.
        num_prompts: test prompts of a task at most.
        num_dev: dev prompts of a task, which choose the dials; of a benchmark at most num_prompts / 4.
        gen_length: positions to fill; default the task's.
        block_length: default the task's.
        use_cache: keys and values that a block keeps from its first round, of all arms that do not say it; default none.
        tuning: random points tried on the dev prompts for each arm with a tuning space.
        parity: points searched in a parity study with beam ETE; 0 compares curves.
        model: checkpoint folder or hub id; default the shipped model.
        head: folder of a scoring head; default the one that ships for the model.
        adapter: folder of a PEFT LoRA adapter, merged into the model.
        calibrated: file of calibrate.py, whose dial runs as one more arm.
        choose: dials by their estimated accuracy, or so that it falls by at most .01 with confidence .95.
        out: folder for comparison.json, table.md, report.html, texts, rounds and the lines of every run.
        batch_size: prompts at a time; default 16 on the CPU, 512 on a GPU.
        seed: of prompts, random arms, tuning and resamples.
        device: cpu, cuda, ...; default the GPU if there is one.
        dtype: of the weights; default float32 on the CPU, the checkpoint's own elsewhere.
        tf32: faster matrix products on a GPU, with inputs of 10 bits.
        run_code: let the checkers of humaneval and mbpp run the model's code on this machine.
        check: module:function of (prompt, text, response), True where a text is right, in the task checker's place.
        replays: test prompts of a task whose rounds the report plays, at most 100; they are decoded once more; default 32.
        report: write report.html (extra `report`); python -m train.report FOLDER writes it later.
    """
    size: dict[str, Any] = {"num_prompts": num_prompts, "num_dev": num_dev, "seed": seed, "run_code": run_code}
    size |= {"gen_length": gen_length, "block_length": block_length, "use_cache": use_cache, "check": check}
    size |= {"parity": parity}
    replays = kept_replays(replays, parity, tuning=tuning, choose=choose, calibrated=calibrated)
    catalogue, arms = with_calibrated(catalogue, arms, calibrated, task)
    control = dial_control(choose, num_dev=num_dev, tuning=tuning)
    call = check_compare(catalogue, arms, task, prompts=prompts, model=model, head=head, adapter=adapter, **size)
    study: dict[str, Any] = {"tuning": tuning, "parity": parity, "batch_size": batch_size, "seed": seed}
    study |= {"calibrated": calibrated, "control": control, "replays": replays, "report": report}
    print(run_compare(call, out=out, device=device, dtype=dtype, tf32=tf32, **study))


if __name__ == "__main__":
    run(compare, default_config="configs/compare/default.yaml", kept=GOES_ON)
