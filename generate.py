"""Decode one prompt: python generate.py --prompt 3,5,7,56 --task countdown3"""

from typing import Any

from train.command import run
from train.question import answer, judge


def generate(
    prompt: str,
    task: str | None = None,
    policy: str | None = None,
    settings: dict[str, Any] | None = None,
    model: str | None = None,
    head: str | None = None,
    gen_length: int | None = None,
    block_length: int | None = None,
    temperature: float = 0.0,
    seed: int = 0,
    device: str | None = None,
    watch: bool = False,
    json: bool = False,
) -> None:
    """Decode one prompt with a masked diffusion language model.

    Args:
        prompt: the text after which the canvas is filled.
        task: a task of the shipped model (sudoku, countdown3, ...), which sets the lengths and checks the answer.
        policy: which positions to commit when; default learned where there is a head, else ete.
        settings: of the policy, one by one as --settings.threshold 0.8 or as one JSON object.
        model: checkpoint folder or hub id; default the shipped model.
        head: folder of a scoring head; default the shipped one, with the shipped model.
        gen_length: positions to fill; default the task's, else 64.
        block_length: default the task's, else 32 where that divides gen_length.
        temperature: 0 takes the most likely token.
        seed: of every draw.
        device: cpu, cuda, ...; default the GPU if there is one.
        watch: show the canvas after every round.
        json: print one JSON object on the last line.
    """
    canvas = {"gen_length": gen_length, "block_length": block_length, "temperature": temperature}
    question = judge(prompt, task, policy, {**canvas, **(settings or {})}, model=model, head=head)
    print(answer(question, seed=seed, device=device, watch=watch, as_json=json))


if __name__ == "__main__":
    run(generate)
