"""Several processes of a run give what one gives: two and four of them over the loopback device, and on as many GPUs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from decoding.comparison.records.ledger import COLUMNS
from decoding.traces.labelling import Labelling
from models.ranks import Ranks, alone, by_the_first, find_ranks, launched
from train.head.estimate import Size, _factor
from train.head.head_run import HeadRun
from train.head.settings import Fitting, TaskRun

FILE = Path(__file__).with_name("several_processes.py")
DEVICES, SIZES = ("cpu", "cuda"), (2, 4)
TOLERANCE = {"inverse": 1e-9, "uniform": 4 * torch.finfo(torch.float32).eps}
"""Of the largest entry, in float64; shares of a mean over all positions are rounded by the loss, which is float32. So are logits
on a GPU, whose products of a smaller batch differ in their last bits."""

pytestmark = pytest.mark.filterwarnings("ignore:.*(LeafSpec|num_workers|IterableDataset|number of training batches)")


def launch(monkeypatch, rank: int, size: int) -> None:
    values = {"RANK": str(rank), "WORLD_SIZE": str(size), "LOCAL_RANK": str(rank), "MASTER_ADDR": "localhost"}
    for name, value in values.items():
        monkeypatch.setenv(name, value)


@pytest.fixture(scope="module")
def work(tmp_path_factory, write_tiny) -> Path:
    folder = tmp_path_factory.mktemp("several")
    write_tiny(folder / "base", width=32, layers=2, sharpness=60)
    return folder


@pytest.fixture(scope="module", params=DEVICES)
def device(request) -> str:
    return str(request.param)


@pytest.fixture(scope="module", params=SIZES, ids=lambda size: f"{size} processes")
def size(request, device) -> int:
    if device == "cuda" and torch.cuda.device_count() < request.param:
        pytest.skip(f"needs {request.param} GPUs")
    return int(request.param)


@pytest.fixture(scope="module")
def out(tmp_path_factory, device, size) -> Path:
    """Where `together` leaves its files; made anew each time, for tests may run in any order."""
    return tmp_path_factory.mktemp(f"of-{size}-{device}")


def run(work: Path, out: Path, device: str, size: int) -> list[dict[str, Any]]:
    """What every process of a run found, or the one that runs alone."""
    started = size if device == "cuda" else 1  # on CPUs it forks
    processes = []
    for rank in range(started):
        own = {"RANK": rank, "WORLD_SIZE": size, "LOCAL_RANK": rank, "MASTER_ADDR": "127.0.0.1"} if started > 1 else {}
        environment = os.environ | {name: str(value) for name, value in own.items()}
        environment |= {
            "GLOO_SOCKET_IFNAME": "lo",
            "OMP_NUM_THREADS": str(torch.get_num_threads()),
        }
        environment |= {"CUDA_VISIBLE_DEVICES": ""} if device == "cpu" else {"TORCH_COMPILE_DISABLE": "1"}
        command = [sys.executable, str(FILE), str(work), str(out), device, str(size)]
        processes.append(subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True))
    try:
        for process in processes:
            _, said = process.communicate(timeout=300)
            assert process.returncode == 0, said[-2000:]
    finally:
        for process in processes:
            process.kill()
    return [torch.load(out / f"found-{rank}.pt", weights_only=False, map_location="cpu") for rank in range(size)]


@pytest.fixture(scope="module")
def together(work, out, device, size) -> list[dict[str, Any]]:
    return run(work, out, device, size)


@pytest.fixture(scope="module")
def one(tmp_path_factory, device) -> Path:
    """Where `by_itself` leaves its files."""
    return tmp_path_factory.mktemp(f"one-{device}")


@pytest.fixture(scope="module")
def by_itself(work, one, device) -> dict[str, Any]:
    """What one process finds on the same kind of device."""
    return run(work, one, device, 1)[0]


def agree(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor], tolerance: float) -> None:
    assert ours.keys() == theirs.keys()
    for name, one in ours.items():
        assert (theirs[name].shape, theirs[name].dtype) == (one.shape, one.dtype)
        scale = max(float(one.detach().abs().max()), 1e-300)
        apart = float((theirs[name] - one).detach().abs().max()) / scale
        assert apart <= tolerance, f"{name}: {apart:.1e} of its largest entry"


def lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_traces_are_the_same(one, out, together, by_itself):
    from pyarrow.parquet import read_table

    ours, theirs = (sorted((at / "traces" / "countdown3").glob("part-*")) for at in (one, out))
    assert [file.name for file in ours] == [file.name for file in theirs]
    assert len(ours) == 4
    assert all(read_table(a).equals(read_table(b)) for a, b in zip(ours, theirs, strict=True))


def test_the_first_process_ends_a_collection_for_all(together, by_itself):
    assert by_itself["ended"] == ["part-dev-00000.parquet", "part-train-00000.parquet"]
    assert [found["ended"] for found in together] == [by_itself["ended"]] * len(together)


@pytest.mark.parametrize("weighting", ["inverse", "uniform"])
def test_gradients_of_a_base_are_those_of_the_whole_batch(together, by_itself, weighting, device):
    tolerance = TOLERANCE["uniform" if device == "cuda" else weighting]
    for found in together:
        agree(by_itself["base"][weighting], found["base"][weighting], tolerance)


@pytest.mark.parametrize("what", ["head", "cascade"])
def test_gradients_of_what_is_fitted_are_those_of_the_whole_batch(together, by_itself, what):
    assert any(value.abs().max() > 0 for value in by_itself[what].values())
    for found in together:
        agree(by_itself[what], found[what], 1e-5)


def test_all_processes_end_a_fit_with_the_same_weights(together):
    first, *others = together
    assert first["fitted cascade"][0].startswith("countdown3: learned from")
    for other in others:
        agree(first["fitted head"], other["fitted head"], 0.0)
        agree(first["fitted cascade"][1], other["fitted cascade"][1], 0.0)
        assert other["fitted cascade"][0] == ""


def test_a_comparison_has_the_same_figures_of_every_prompt(one, out, together, by_itself):
    ours, theirs = (lines(at / "compare" / "countdown3.jsonl") for at in (one, out))
    assert ours[0] == theirs[0]
    timed = [name for name in COLUMNS if name != "seconds"]

    def figures(records: list[dict[str, Any]]) -> list[list[Any]]:
        return sorted([line[name] for name in ("split", "cell", "prompt", *timed)] for line in records)

    assert figures(ours[1:]) == figures(theirs[1:])
    assert not list((out / "compare").glob("*.rank-*"))
    assert (out / "compare" / "comparison.json").is_file()


def test_answers_stand_in_the_order_of_the_prompts(one, out, together, by_itself):
    ours, theirs = (lines(at / "answers.jsonl") for at in (one, out))
    assert [{**line, "seconds": 0} for line in ours] == [{**line, "seconds": 0} for line in theirs]
    assert len(ours) == 5
    assert not list(out.glob("*.rank-*"))


def test_a_process_is_one_of_several_only_where_all_four_are_set(monkeypatch):
    launch(monkeypatch, 1, 4)
    assert find_ranks() == Ranks(1, 4, 1)
    with alone():
        assert find_ranks() == Ranks()
        assert launched() == Ranks(1, 4, 1)
    monkeypatch.delenv("MASTER_ADDR")
    assert find_ranks() == Ranks()
    monkeypatch.setenv("MASTER_ADDR", "localhost")
    monkeypatch.setenv("RANK", "4")
    with pytest.raises(ValueError, match="RANK must be at least 0 and below WORLD_SIZE, got 4 of 4"):
        find_ranks()
    monkeypatch.setenv("RANK", "one")
    with pytest.raises(ValueError, match="must be whole numbers, got RANK=one"):
        find_ranks()


def test_items_are_dealt_and_one_process_has_them_all():
    assert [Ranks(rank, 3).mine(range(7)) for rank in range(3)] == [range(0, 7, 3), range(1, 7, 3), range(2, 7, 3)]
    assert list(Ranks().mine([1, 2])) == [1, 2]
    assert by_the_first(lambda: 3) == 3


def test_hours_are_shared_by_the_processes(monkeypatch):
    parts: dict[str, Any] = {"tasks": {"countdown3": TaskRun()}, "drivers": {"t": {"policy": "threshold"}}, "beam": {}}
    parts |= {"relabel": {}, "labelling": Labelling(), "fitting": Fitting(), "catalogue": ()}
    sizes = {"num_prompts": 1, "num_dev": 1, "batch_size": 1, "seed": 0}
    run = HeadRun(model=None, out=Path("unused"), device=None, budget_hours=1.0, **parts, **sizes)
    one = _factor(run, Size(seconds=7200.0))
    launch(monkeypatch, 0, 4)
    assert (one, _factor(run, Size(seconds=7200.0))) == (0.5, 2.0)
