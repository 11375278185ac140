"""The calibrating command: bad input is told in one sentence before torch is imported; its file sets and guards later decodes."""

import json
from pathlib import Path

import pytest

import calibrate as calibrate_command
import compare as compare_command
import generate as generate_command
from tests.complaint import complaint, early_complaint
from train.commands.command_line import run

ROOT = Path(__file__).parents[1]
PROMISE = ("--max_loss", "0.3", "--confidence", "0.9")  # seven prompts without a loss are enough
SMALL = ("--policy", "threshold", "--task", "countdown3", *PROMISE, "--num_prompts", "7", "--device", "cpu")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--task", "suduko"), "task must be one of sudoku, "),
        (("--policy", "treshold"), "policy must be one of sequential, "),
        (("--policy", "sequential"), "dial must be given for policy sequential, which has none by name, got none"),
        (("--num_prompts", "6"), "num_prompts must be at least 7 to promise a flip loss of 0.3 at confidence 0.9, got 6"),
        (("--max_loss", "0"), "max_loss must lie in (0, 1), got 0.0"),
        (("--confidence", "95"), "confidence must lie in (0, 1), got 95.0"),
        (("--loss", "flop"), "loss must be "),
        (("--values", "0.9,high"), "values must be numbers with commas between them, got '0.9,high'"),
        (("--values", "0.9,0.9"), "values must be finite and differ from each other, got '0.9,0.9'"),
        (("--values", "0.9,1.5"), "threshold must lie in (0, 1], got 1.5"),
        (("--dial", "factor"), "settings of policy threshold must be among threshold, got factor, in arm threshold"),
        (("--dial", "certainty"), "values must be given for dial certainty, careful ones first, got none"),
        (("--settings.threshold", "0.9"), "settings must leave out the dial threshold, which is tested, got 0.9"),
        (("--block_length", "5"), "gen_length must be a multiple of block_length (5), got 24"),
        (("--batch_size", "0"), "batch_size must be at least 1, got 0"),
        (("--model", "checkpoints/nothing"), "model must be a checkpoint folder or a hub id, got 'checkpoints/nothing'"),
        (("--head", "tests"), "head must be a folder with head.safetensors, got tests"),
    ],
)  # fmt: skip
def test_bad_input_is_told_in_one_sentence(capsys, tmp_path, arguments, sentence):
    options = dict(zip(SMALL[::2], SMALL[1::2], strict=True)) | dict([arguments])
    flat = [part for option in options.items() for part in option]
    printed = complaint(capsys, calibrate_command.calibrate, *flat, "--out", str(tmp_path / "out"))
    assert printed.startswith(f"calibrate.py: {sentence}")


def test_bad_input_is_judged_before_torch_is_imported(tmp_path):
    arguments = [*SMALL[:-4], "--num_prompts", "3", "--out", str(tmp_path)]
    assert early_complaint("calibrate.py", *arguments).startswith(
        "calibrate.py: num_prompts must be at least 7 to promise a flip loss of 0.3"
    )


def test_a_calibration_is_written_goes_on_and_holds_later_decodes_to_it(capsys, tmp_path, tiny):
    arguments = [*SMALL, "--values", "0.0005,0.9", "--model", str(tiny), "--out", str(tmp_path)]
    run(calibrate_command.calibrate, arguments)
    printed = capsys.readouterr().out
    file = tmp_path / "calibration.json"
    found = json.loads(file.read_text())
    assert [row["value"] for row in found["tested"]] == [0.9, 0.0005]
    assert (found["chosen"], found["n"], found["loss"], found["checked"]) == (0.0005, 7, "flip", True)  # all at once
    assert found["bound"] == pytest.approx(1 - 0.1 ** (1 / 7))  # a model that is never right has nothing to lose
    assert found["conditions"].keys() == {
        "policy", "model", "head", "gen_length", "block_length", "use_cache", "temperature", "end_ids", "dtype", "engine"
    }  # fmt: skip
    assert found["reference"]["version"] == 1
    assert [len(scores) for scores in found["reference"]["scores"].values()] == [7]  # nothing forced, no drafts
    assert found["environment"].keys() == {"command", "commit", "seed", "device", "versions"}
    assert "threshold 0.0005: mean loss (flip) at most 0.3 with confidence 0.9, on 7 prompts of countdown3" in printed
    lines = (tmp_path / "countdown3.jsonl").read_text()
    run(calibrate_command.calibrate, arguments)
    assert (tmp_path / "countdown3.jsonl").read_text() == lines
    capsys.readouterr()

    decode = ("--prompt", "2,3,4,24", "--model", str(tiny), "--device", "cpu", "--calibrated", str(file), "--json")
    run(generate_command.generate, decode)
    facts = json.loads(capsys.readouterr().out)
    assert facts["settings"]["policy"] == {"name": "threshold", "threshold": 0.0005}
    assert (facts["settings"]["gen_length"], facts["settings"]["calibrated"]) == (24, str(file))
    refused = complaint(capsys, generate_command.generate, *decode[:2], "--device", "cpu", "--calibrated", str(file))
    assert refused.startswith("generate.py: model must be ")
    refused = complaint(capsys, generate_command.generate, *decode, "--policy", "factor")
    assert refused == "generate.py: policy must be threshold as calibrated, got 'factor'"

    contest = ("--catalogue", json.dumps([{"name": "sequential", "kind": "headless", "policy": "sequential"}]))
    contest += (
        "--num_prompts",
        "2",
        "--num_dev",
        "2",
        "--model",
        str(tiny),
        "--device",
        "cpu",
        "--calibrated",
        str(file),
    )
    run(
        compare_command.compare,
        [*contest, "--task", "countdown3", "--use_cache", "dual", "--out", str(tmp_path / "compare")],
    )
    rows = json.loads((tmp_path / "compare" / "comparison.json").read_text())["results"]
    caches = {row["arm"]: row["settings"]["use_cache"] for row in rows}
    assert caches == {"sequential": "dual", "calibrated": "none"}  # it keeps the cache that it was calibrated with
    assert {row["settings"]["threshold"] for row in rows if row["arm"] == "calibrated"} == {0.0005}
    capsys.readouterr()
    refused = complaint(
        capsys, compare_command.compare, *contest, "--task", "countdown4", "--out", str(tmp_path / "no")
    )
    assert refused == f"compare.py: task must be countdown3 as calibrated in {file}, got 'countdown4'"
    lengths = ("--task", "countdown3", "--gen_length", "16", "--block_length", "16")
    refused = complaint(capsys, compare_command.compare, *contest, *lengths, "--out", str(tmp_path / "no"))
    assert refused.startswith("compare.py: gen_length must be 24 as calibrated in ")
    sudoku = ("--prompt", "0" * 81, "--task", "sudoku")
    refused = complaint(capsys, generate_command.generate, *sudoku, *decode[2:])
    assert refused == f"generate.py: task must be countdown3 as calibrated in {file}, got 'sudoku'"
    run(generate_command.generate, [*decode, "--task", "countdown3"])
    assert json.loads(capsys.readouterr().out)["settings"]["task"] == "countdown3"


def test_texts_are_compared_where_prompts_come_without_answers(capsys, tmp_path, tiny):
    file = tmp_path / "mine.jsonl"
    file.write_text("".join(json.dumps({"prompt": f"what is {n}?"}) + "\n" for n in range(8)))
    arguments = ["--policy", "quota", "--task", "text", "--prompts", str(file), "--num_prompts", "8"]
    arguments += ["--gen_length", "4", "--block_length", "4", "--values", "4,1", "--model", str(tiny)]
    run(calibrate_command.calibrate, [*arguments, *PROMISE, "--out", str(tmp_path), "--device", "cpu"])
    found = json.loads((tmp_path / "calibration.json").read_text())
    assert not found["checked"]
    assert found["tested"][0]["loss"] == 0.0  # one position a round is the careful decode itself
    assert found["tested"][0]["accuracy"] is None
    assert (found["settings"], found["dial"]) == ({}, "steps")
    arguments += ["--loss", "difference", "--max_loss", "0.4", "--confidence", "0.5"]
    capsys.readouterr()
    refused = complaint(capsys, calibrate_command.calibrate, *arguments, "--out", str(tmp_path / "no"))
    assert refused == "calibrate.py: loss must be flip where no checker judges the answers, got 'difference'"
