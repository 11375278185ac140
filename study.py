"""Run one of the papers' results on a model: python study.py NAME [--config configs/study/NAME.yaml] [--out DIR]"""

from typing import Any

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
) -> None:
    """Run a study and write its figures and its picture, NAME.json and NAME.png.

    Args:
        name: of the study; an unknown name is answered with all of them.
        settings: of the study, by name; its default size where left out.
        model: checkpoint folder or hub id; default the shipped model.
        head: folder of a scoring head; default the shipped one, with the shipped model.
        out: folder of the results.
        seed: of prompts and draws.
        device: cpu, cuda, ...; default the GPU if there is one.
    """
    check_study(name)
    print(run_study(name, settings or {}, out=out, model=model, head=head, seed=seed, device=device))


if __name__ == "__main__":
    run(study, default_config="configs/study/{name}.yaml", positional="name")
