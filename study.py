"""Run one of the papers' results on a model: python study.py NAME [--config configs/study/NAME.yaml] [--out DIR]"""

from typing import Any, Literal

from train.commands.command_line import run
from train.commands.study import check_study, run_study


def study(
    name: str,
    settings: dict[str, Any] | None = None,
    model: str | None = None,
    head: str | None = None,
    out: str = "checkpoints/runs/study",
    seed: int = 0,
    device: str | None = None,
    dtype: Literal["float32", "bfloat16", "float16"] | None = None,
) -> None:
    """Run a study and write its figures and its picture, NAME.json and NAME.png.

    Args:
        name: of the study; an unknown name is answered with all of them.
        settings: of the study, by name; its default size where left out.
        model: checkpoint folder or hub id; default the shipped model.
        head: folder of a scoring head; default the one that ships for the model.
        out: folder of the results.
        seed: of prompts and draws.
        device: cpu, cuda, ...; default the GPU if there is one.
        dtype: of the weights; default float32 on the CPU, the checkpoint's own elsewhere.
    """
    check_study(name)
    where: dict[str, Any] = {"model": model, "head": head, "device": device, "dtype": dtype}
    print(run_study(name, settings or {}, out=out, seed=seed, **where))


if __name__ == "__main__":
    run(study, default_config="configs/study/{name}.yaml", positional="name")
