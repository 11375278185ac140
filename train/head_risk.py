"""What a head's risk knows beyond a calibrated confidence: ``python -m train.head_risk --task sudoku,countdown3``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

    from decoding.policies.learned import Learned
    from models.denoiser import Denoiser
    from train.head.metrics import RiskEstimates
    from train.head.module import Prepared

DRIVERS: Mapping[str, Mapping[str, Any]] = {
    "threshold": {"policy": "threshold", "threshold": 0.97},
    "careful": {"policy": "threshold", "threshold": 0.998},
    "factor": {"policy": "factor", "factor": 0.03},
}
"""Careful ones: where the answer is unique, risk is only labelled in states without a wrong token."""
CROSSED = 0.9  # C of the look-ahead that labels


def head_risk(
    *,
    task: str = "sudoku",
    model: str | None = None,
    head: str | None = None,
    prompts: str | None = None,
    num_prompts: int = 240,
    risk_bound: float = 0.05,
    batch_size: int = 16,
    seed: int = 0,
    device: str | None = None,
    out: Path = Path("checkpoints/runs/head-risk"),
) -> None:
    """Label the candidates of states of dev prompts and compare risk, before and after a look at the cascade, with confidence.

    Brier and log-loss skill over the confidence, every estimate isotonically recalibrated on half of the prompts and judged on the
    other half: of all positions, and of those that a round of `learned` leaves. A position that it commits keeps the risk it had.

    Args:
        task: names of tasks, with commas between them.
        model: folder or hub id of the base; default the shipped model.
        head: folder of its scoring head; default the one that ships for the model.
        prompts: a JSONL(.gz) file of prompts in place of the generator, where there is one task.
        num_prompts: dev prompts of each task, at least 2.
        risk_bound: of that round, in (0, 1].
        batch_size: canvases in one forward.
        seed: of prompts and draws.
        device: where to run; by default the GPU if there is one.
        out: folder of traces and head-risk.json; traces that are there already are not collected again.
    """
    from train.commands.folders import MODEL, check_model, head_of, or_shipped
    from train.tasks import get

    names = [name.strip() for name in task.split(",")]
    for name in names:
        if get(name).make is None and prompts is None:
            raise ValueError(f"prompts of task {name} must be a file, for it has no generator, got none")
    if prompts is not None and len(names) > 1:
        raise ValueError(f"prompts must come with one task, got {len(names)}")
    if num_prompts < 2:
        raise ValueError(f"num_prompts must be at least 2, got {num_prompts}")
    if not 0 < risk_bound <= 1:
        raise ValueError(f"risk_bound must lie in (0, 1], got {risk_bound}")
    check_model(or_shipped(model, MODEL), "")
    model, head = or_shipped(model, MODEL), head_of(model, head)

    import models
    from decoding.provenance import environment, write_json
    from train.head.head_run import quieten

    quieten()
    denoiser = models.load(model, head=head, device=device)
    by_task: dict[str, Any] = {}
    about = {"num_prompts": num_prompts, "risk_bound": risk_bound}
    for name in names:
        rows = traces(denoiser, name, prompts, num_prompts, batch_size=batch_size, seed=seed, folder=out / "traces")
        by_task[name] = figures(denoiser, rows, risk_bound=risk_bound, batch_size=batch_size)
        print("\n".join(lines(name, by_task[name])), flush=True)
        provenance = {"environment": environment(device=denoiser.device, seed=seed)}
        write_json(out / "head-risk.json", about | {"tasks": by_task} | provenance)


def traces(
    denoiser: Denoiser, name: str, prompts: str | None, count: int, *, batch_size: int, seed: int, folder: Path
) -> list[dict[str, Any]]:
    """Labelled states of a task's dev prompts, eight of a prompt, four where a label takes a decode to the end.

    Args:
        denoiser: the base.
        name: of the task.
        prompts: its file, or None.
        count: dev prompts.
        batch_size: canvases in one forward.
        seed: of prompts and draws.
        folder: of the traces.
    """
    from decoding.policies.ete import BeamETE
    from decoding.traces.labelling import Labelling
    from decoding.traces.trace import load_table
    from train.head.settings import TaskRun
    from train.tasks import get
    from train.traces.collection import Collector
    from train.traces.drivers import make_drivers
    from train.traces.prompts import prompts_of

    task = get(name)
    judged = Labelling(states_per_prompt=4, labelled=4, branches=16, strata=8, finished=16, dev_branches=16)
    labelling = Labelling(states_per_prompt=8, labelled=0) if task.unique_answer else judged
    examples = prompts_of(task, TaskRun(prompts_file=prompts), "dev", count, seed=seed)
    drivers = make_drivers(DRIVERS, denoiser, None)
    collector = Collector(
        denoiser, task, BeamETE(CROSSED), drivers, labelling, task.block_length, batch_size, seed, chunk=3 * batch_size
    )
    collector.run({"dev": examples}, folder / name)
    return list(load_table(folder / name, denoiser))


def figures(denoiser: Denoiser, rows: list[dict[str, Any]], *, risk_bound: float, batch_size: int) -> dict[str, Any]:
    """Figures of every estimate, of all positions and of those that a round leaves; empty where one kind of label is missing.

    Args:
        denoiser: the base with its head.
        rows: of the trace table.
        risk_bound: of the round that the cascade looks at, in (0, 1].
        batch_size: states in one batch.
    """
    from functools import partial

    from decoding.policies.learned import Learned
    from train.head.data import HeadData, columns
    from train.head.metrics import collect_risk
    from train.head.module import PreparedBatches

    if not rows:
        return {}
    head = denoiser.head
    width = max(len(columns(row["branches"])) for row in rows)
    crossed = head.config.threshold
    data = HeadData(rows, denoiser.mask_id, denoiser.eos_id, crossed, max(1, width))
    batches = list(data.batches(batch_size, generator=None))
    prepared = PreparedBatches(denoiser, batches, taps=head.taps_ahead, threshold=crossed)
    policy, of = Learned(head, risk_bound=risk_bound, looks=0), [row["prompt_id"] for row in rows]
    left = collect_risk(head, prepared, of, lambda one: left_by(policy, one).float()).head > 0
    estimates = {"head": collect_risk(head, prepared, of)}
    if head.cascade is not None:
        for name, weight in (("look", 0.0), ("both", 1.0)):
            estimates[name] = collect_risk(head, prepared, of, partial(after_look, policy, weight=weight))

    return {name: {"all": skills(one), "left": skills(one.where(left))} for name, one in estimates.items()}


def skills(judged: RiskEstimates) -> dict[str, Any]:
    """Figures on the prompts of odd number, everything recalibrated on those of even number; empty where a half has one label."""
    from train.head.metrics import risk_figures

    fitted_on, unseen = (judged.where(judged.prompt % 2 == half) for half in (0, 1))
    mixed = fitted_on.mixed and unseen.mixed
    return risk_figures(fitted_on, unseen.recalibrated(fitted_on)) if mixed else {}


def left_by(policy: Learned, one: Prepared) -> Tensor:
    """Positions that a round leaves masked."""
    return one.reading.rows & (policy.propose(one.batch.state, one.reading).reason[:, 0] == 0)


def after_look(policy: Learned, one: Prepared, *, weight: float) -> Tensor:
    """1 - p(candidate | x, x_S) as the cascade foretells it of the positions left; the head's own risk of those committed.

    `weight` times what the head corrects of the logit of 1 - p(candidate | x) is added to its logit.
    """
    import torch
    from torch.nn.functional import pad

    from decoding.policies.cascade import ask
    from models.heads.window_scores import prior_of

    assert policy.head.cascade is not None
    reading, scores, left = one.reading, one.scored_by(policy.head), left_by(policy, one)
    foretold = ask(policy.head.cascade, reading, reading.rows & ~left, reading.token)
    itself = pad((reading.top_tokens == reading.token.unsqueeze(-1))[left], (0, 1))
    others = foretold.masked_fill(itself, -torch.inf).logsumexp(-1)
    correction = scores.risk_logit - prior_of(reading.log_risk)
    logit = prior_of(others.clamp(max=-1e-7)) + weight * correction[left]
    return scores.risk.masked_scatter(left, logit.sigmoid())


def lines(name: str, estimates: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> list[str]:
    """The figures as lines of text."""
    out = []
    for estimate, parts in estimates.items():
        for where, one in parts.items():
            text = f"{name:16s} {estimate:5s} {where:5s}"
            if one:
                text += f" {one['positions']:7d} positions  AUROC {one['auroc']:.3f} ({one['auroc_confidence']:.3f})"
                for skill in ("brier_skill", "log_loss_skill"):
                    text += (
                        f"  {skill} {one[skill]['estimate']:+.3f} [{one[skill]['low']:+.3f}, {one[skill]['high']:+.3f}]"
                    )
            out.append(text if one else text + " one kind of label alone")
    return out


if __name__ == "__main__":
    from train.commands.command_line import run

    run(head_risk)
