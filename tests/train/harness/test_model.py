"""The harness itself on a task file of this machine, offline; skipped where the extra `eval` is not installed."""

import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.train.lm_eval_task import lm_eval_task
from train.commands.command_line import shipped

lm_eval = pytest.importorskip("lm_eval", reason='lm_eval is not installed (pip install ".[eval]")')
pytestmark = pytest.mark.filterwarnings("ignore")  # the harness's own libraries warn

BASE = str(shipped("checkpoints/reason-7m"))
GENERATE = {
    "output_type": "generate_until",
    "doc_to_text": "{{input}}",
    "doc_to_target": "{{output}}",
    "generation_kwargs": {"until": ["="], "max_gen_toks": 24},
}
CHOOSE = {
    "output_type": "multiple_choice",
    "doc_to_text": "{{input}}",
    "doc_to_choice": ["1+2=3,", "9*9*9"],
    "doc_to_target": 0,
}


@pytest.fixture(scope="module")
def tasks(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("tasks")
    data = folder / "sums.jsonl"
    prompts = ["2,3,4,24", "10,20,30,60", "90,47,9,52", "58,71,93,80", "5,6,7,77"]
    data.write_text("".join(json.dumps({"input": one, "output": "3*4"}) + "\n" for one in prompts))
    (folder / "sums.yaml").write_text(lm_eval_task("sums", data, "exact_match", **GENERATE))
    (folder / "choices.yaml").write_text(lm_eval_task("choices", data, "acc", **CHOOSE))
    return folder


def evaluate(tasks: Path, names: list[str], **arguments) -> dict:
    from lm_eval.tasks import TaskManager

    from train.harness.model import FewerRounds

    given = {"pretrained": BASE, "device": "cpu", "samples": 4, "block_length": 24, "policy": "threshold", **arguments}
    manager = TaskManager(include_path=str(tasks), include_defaults=False)
    found = lm_eval.simple_evaluate(
        FewerRounds(**given), tasks=names, task_manager=manager, bootstrap_iters=0, verbosity="ERROR"
    )
    samples = {name: [(s["doc_id"], s["filtered_resps"]) for s in found["samples"][name]] for name in names}
    return {"results": found["results"], "samples": samples, "config": found["config"]}


def test_scores_do_not_depend_on_the_batch_or_on_an_interruption(tasks, tmp_path):
    names, folder = ["sums", "choices"], tmp_path / "kept"
    one = evaluate(tasks, names, batch_size=1, save_dir=str(folder))
    four = evaluate(tasks, names, batch_size=4)
    assert [text for _, text in one["samples"]["sums"]] == [text for _, text in four["samples"]["sums"]]
    assert one["results"]["sums"] == four["results"]["sums"]
    assert one["results"]["choices"] == four["results"]["choices"]
    assert one["samples"]["sums"][0][1] == ["3*4"]  # up to the stop string
    lines = [json.loads(line) for line in (folder / "samples-0.jsonl").read_text().splitlines()]
    answers = [line for line in lines if "rounds" in line]
    assert [line["doc_id"] for line in answers if line["task"] == "sums"] == list(range(5))
    assert all(line["tokens"] > 0 and line["rounds"] > 0 and line["seconds"] >= 0 for line in answers)
    assert one["config"]["rounds_per_answer"] == sum(line["rounds"] for line in answers) / 5

    whole = (folder / "samples-0.jsonl").read_bytes()
    (folder / "samples-0.jsonl").write_bytes(whole[: whole.find(b"\n", len(whole) // 3) + 20])
    again = evaluate(tasks, names, batch_size=1, save_dir=str(folder))
    assert again["samples"] == one["samples"]
    assert again["results"] == one["results"]
    with pytest.raises(
        ValueError, match=r"save_dir must hold answers of the same settings, or none, got .* with another"
    ):
        evaluate(tasks, names, save_dir=str(folder), threshold=0.5)


def test_the_command_registers_the_model_and_reports(tasks, tmp_path):
    arguments = ["--model_args", f"pretrained={BASE},policy=threshold,threshold=0.9,block_length=24,device=cpu"]
    arguments += ["--tasks", "sums", "--include_path", str(tasks), "--limit", "2"]
    done = subprocess.run(
        [sys.executable, "-m", "train.harness", *arguments], capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert re.search(r"\|sums *\|", done.stdout)  # the table is padded by some versions alone
    wrong = subprocess.run(
        [sys.executable, "-m", "train.harness", *arguments[:1], "policy=treshold", *arguments[2:]],
        capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert wrong.returncode == 2
    assert "did you mean threshold?" in wrong.stderr.splitlines()[-1]


def test_two_processes_share_the_samples_out_and_score_as_one(tasks, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        where = ["--master_addr", "127.0.0.1", "--master_port", str(free.getsockname()[1])]
    kept, out = tmp_path / "kept", tmp_path / "out"
    model = f"pretrained={BASE},policy=threshold,block_length=24,device=cpu,samples=4,save_dir={kept}"
    given = ["--model_args", model, "--tasks", "sums,choices", "--include_path", str(tasks), "--output_path", str(out)]
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", *where, "-m", "train.harness", *given],
        capture_output=True, text=True, timeout=600, check=False, env={**os.environ, "GLOO_SOCKET_IFNAME": "lo"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    (found,) = out.rglob("results*.json")
    scores, alone = json.loads(found.read_text())["results"], evaluate(tasks, ["sums", "choices"])["results"]
    assert scores["sums"]["exact_match,none"] == alone["sums"]["exact_match,none"]
    assert scores["choices"]["acc,none"] == alone["choices"]["acc,none"]
    lines = [[json.loads(one) for one in (kept / f"samples-{rank}.jsonl").open()] for rank in (0, 1)]
    answered = [[line["doc_id"] for line in own if line.get("task") == "sums"] for own in lines]
    assert [own[:3] for own in answered] == [[0, 2, 4], [1, 3, 3]]  # the harness fills the last round up


def test_the_task_that_the_page_shows_is_scored(tasks, tmp_path):
    page = (Path(__file__).parents[3] / "docs" / "lm-eval.md").read_text()
    (shown,) = re.findall(r"^```yaml\n(.*?)^```", page, re.M | re.S)
    (tmp_path / "sums.yaml").write_text(shown.replace("sums.jsonl", str(tasks / "sums.jsonl")))
    found = evaluate(tmp_path, ["sums"])
    assert len(found["samples"]["sums"]) == 5
    assert 0 <= found["results"]["sums"]["exact_match,none"] <= 1


def test_long_contexts_are_refused_or_cut(tasks):
    from train.harness.model import FewerRounds

    how = {"pretrained": BASE, "device": "cpu", "policy": "threshold"}
    model = FewerRounds(**how)
    with pytest.raises(ValueError, match=r"contexts must leave 24 of the model's .* positions"):
        model._context("1," * 4000, 24)
    assert len(FewerRounds(**how, long="cut")._context("1," * 4000, 24)) == model.max_length - 24
