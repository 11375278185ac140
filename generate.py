"""Decode prompts: python generate.py --prompt 3,5,7,56 --task countdown3"""

from typing import Any, Literal

from train.commands.answering.bulk import hold_answers
from train.commands.command_line import GOES_ON, run
from train.commands.generate import check_generate, run_generate
from train.commands.options.listing import listing


def generate(  # one option a line, hence its length
    prompt: list[str] | None = None,
    task: str | None = None,
    prompts: str | None = None,
    row: int | None = None,
    out: str | None = None,
    samples: int = 1,
    policy: str | None = None,
    settings: dict[str, Any] | None = None,
    model: str | None = None,
    head: str | None = None,
    adapter: str | None = None,
    gen_length: int | None = None,
    block_length: int | None = None,
    temperature: float = 0.0,
    use_cache: Literal["none", "prefix", "dual"] | None = None,
    seed: int = 0,
    batch_size: int | None = None,
    device: str | None = None,
    dtype: Literal["float32", "bfloat16", "float16"] | None = None,
    long: Literal["refuse", "cut"] = "refuse",
    run_code: bool = False,
    chat: bool = False,
    watch: bool = False,
    calibrated: str | None = None,
    json: bool = False,
    list: Literal["policies", "tasks", "settings"] | None = None,
) -> None:
    """Decode prompts with a masked diffusion language model: one to read, or a file of them, one line of JSON each.

    Args:
        prompt: the text after which the canvas is filled; may be given several times.
        task: sudoku, countdown3, gsm8k, ...: sets the lengths, puts a benchmark's question to the model, checks the answer.
        prompts: file of prompts (.jsonl or .txt, also with .gz), - for standard input, or `hub`, in place of a prompt.
        row: the only one of them, counted from 1.
        out: .jsonl file for the answers; a run that was stopped goes on where it was.
        samples: answers to each prompt.
        policy: which positions to commit when; default what the head decodes the task with, ete where there is no head.
        settings: of the policy as one JSON object; each of them is an option of its own too, as --threshold 0.8.
        model: checkpoint folder or hub id; default the shipped model.
        head: folder of a scoring head; default the one that ships for the model.
        adapter: folder of a PEFT LoRA adapter, merged into the model.
        gen_length: positions to fill; default the task's, else 64.
        block_length: default the task's, else 32 where that divides gen_length.
        temperature: 0 takes the most likely token.
        use_cache: keys and values that a block keeps from its first round; default none.
        seed: of every draw.
        batch_size: prompts at a time; default what the memory holds.
        device: cpu, cuda, ...; default the GPU if there is one.
        dtype: of the weights; default float32 on the CPU, the checkpoint's own elsewhere.
        long: refuse prompts too long for the model, or cut their beginning.
        run_code: let the checker of humaneval and mbpp run the model's code on this machine.
        chat: talk with an instruct model, a line at a time; without prompts, task and files.
        calibrated: file of calibrate.py; sets what is left out, and refuses a decoder that it was not made for.
        watch: show the canvas after every round.
        json: print one JSON object on the last line.
        list: print the policies, tasks or settings there are.
    """
    if list is not None:
        return print(listing(list, policy))
    canvas = {"gen_length": gen_length, "block_length": block_length, "use_cache": use_cache}
    options = {**canvas, "temperature": temperature, **(settings or {})}
    asked: Any = {"prompts": prompts, "row": row, "run_code": run_code, "conversation": chat, "calibrated": calibrated}
    bulk: dict[str, Any] = {"out": out, "samples": samples, "batch_size": batch_size}
    with hold_answers(prompt=prompt, task=task, json=json, **asked, **bulk):
        call = check_generate(prompt, task, policy, options, model=model, head=head, adapter=adapter, **asked)
        said = run_generate(call, **bulk, long=long, seed=seed, device=device, dtype=dtype, watch=watch, as_json=json)
    print(said, end="\n" if said else "")


if __name__ == "__main__":
    run(generate, kept=GOES_ON)
