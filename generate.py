"""Decode one prompt: python generate.py --prompt 3,5,7,56 --task countdown3"""

from typing import Any

from train.commands.command_line import run
from train.commands.generate import check_generate, run_generate


def generate(
    prompt: str | None = None,
    task: str | None = None,
    prompts: str | None = None,
    row: int = 1,
    policy: str | None = None,
    settings: dict[str, Any] | None = None,
    model: str | None = None,
    head: str | None = None,
    adapter: str | None = None,
    gen_length: int | None = None,
    block_length: int | None = None,
    temperature: float = 0.0,
    seed: int = 0,
    device: str | None = None,
    run_code: bool = False,
    watch: bool = False,
    calibrated: str | None = None,
    json: bool = False,
) -> None:
    """Decode one prompt with a masked diffusion language model.

    Args:
        prompt: the text after which the canvas is filled.
        task: sudoku, countdown3, gsm8k, ...: sets the lengths, puts a benchmark's question to the model, checks the answer.
        prompts: file of the task's prompts, or `hub`, in place of a prompt.
        row: which of them.
        policy: which positions to commit when; default learned where there is a head, else ete.
        settings: of the policy, one by one as --settings.threshold 0.8 or as one JSON object.
        model: checkpoint folder or hub id; default the shipped model.
        head: folder of a scoring head; default the shipped one, with the shipped model.
        adapter: folder of a PEFT LoRA adapter, merged into the model.
        gen_length: positions to fill; default the task's, else 64.
        block_length: default the task's, else 32 where that divides gen_length.
        temperature: 0 takes the most likely token.
        seed: of every draw.
        device: cpu, cuda, ...; default the GPU if there is one.
        run_code: let the checker of humaneval and mbpp run the model's code on this machine.
        calibrated: file of calibrate.py; sets what is left out, and refuses a decoder that it was not made for.
        watch: show the canvas after every round.
        json: print one JSON object on the last line.
    """
    canvas = {"gen_length": gen_length, "block_length": block_length, "temperature": temperature}
    where: dict[str, Any] = {"prompts": prompts, "row": row, "run_code": run_code, "calibrated": calibrated}
    call = check_generate(
        prompt, task, policy, {**canvas, **(settings or {})}, model=model, head=head, adapter=adapter, **where
    )
    print(run_generate(call, seed=seed, device=device, watch=watch, as_json=json))


if __name__ == "__main__":
    run(generate)
