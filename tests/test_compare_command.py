"""The comparing command: bad input is told in one sentence before torch is imported; a small run writes all it says it writes."""

import gzip
import json
import re
import sys
from dataclasses import replace
from pathlib import Path

import pytest

import compare as compare_command
from decoding.comparison.arms import Arm
from tests.complaint import complaint as complaint_of
from tests.complaint import early_complaint
from train.commands.command_line import parser_of, run
from train.commands.compare import check_compare, tasks_that_fit
from train.tasks import Example, get
from train.tasks.own_check import find_check
from train.tasks.problems import checked_by, draw

ROOT = Path(__file__).parents[1]
CONFIG = ("--config", str(ROOT / "configs/compare/default.yaml"))
SEQUENTIAL = Arm("sequential", "headless", "sequential")
SMALL = ("--task", "countdown3", "--num_prompts", "1", "--num_dev", "1")  # judged when prompts are drawn
THRESHOLD = Arm("threshold", "headless", "threshold", "threshold", (0.9,))


def complaint(capsys, *arguments: str) -> str:
    return complaint_of(capsys, compare_command.compare, *CONFIG, *arguments)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--task", "suduko"), "task must be one of sudoku, "),
        (("--arms", "threshold,beam"), "arms must be among sequential, threshold, "),
        (("--num_prompts", "0"), "num_prompts must be at least 1, got 0"),
        (("--num_dev", "0"), "num_dev must be at least 1, got 0"),
        (("--choose", "calibrated"), "num_dev must be at least 299 with choose calibrated, got "),
        (("--choose", "calibrated", "--num_dev", "300", "--tuning", "2"), "tuning must be 0 with choose calibrated, "),
        (("--calibrated", "tests"), "calibrated must be a file of calibrate.py, got tests "),
        (("--batch_size", "0", *SMALL), "batch_size must be at least 1, got 0"),
        (("--tuning", "-1", *SMALL), "tuning must be at least 0, got -1"),
        (("--parity", "-1", *SMALL), "parity must be at least 0, got -1"),
        (("--parity", "4", *SMALL), "arm ete must have no dial in a parity study, got threshold: tune it instead"),
        (("--parity", "4", "--arms", "learned-parity", *SMALL), "arms of a parity study must include ete, got learned-parity"),
        (("--parity", "4", "--arms", "ete,factor", *SMALL), "arms of a parity study must be ete and arms of "),
        (("--parity", "4", "--tuning", "3", *SMALL), "tuning must be left out with parity, got 3"),
        (("--parity", "4", "--choose", "calibrated", *SMALL), "choose must be left out with parity, got 'calibrated'"),
        (("--parity", "4", "--calibrated", "x.json", *SMALL), "calibrated must be left out with parity, got 'x.json'"),
        (("--parity", "4", "--replays", "0", *SMALL), "replays must be left out with parity, got 0"),
        (("--seed", "-1"), "seed must be at least 0, got -1"),
        (("--num_prompts", "many"), "num_prompts must be int, got 'many'"),
        (("--model", "checkpoints/nothing"), "model must be a checkpoint folder or a hub id, got 'checkpoints/nothing'"),
        (("--head", "tests"), "head must be a folder with head.safetensors, got tests"),
        (("--prompts", "x.jsonl"), "prompts must come with one task, got sudoku,multiplication"),
        (("--replays", "101"), "replays must lie in [0, 100], got 101"),
        (("--check", "json"), "check must be module:function of (prompt, text, response), got 'json'"),
        (("--check", "json:laods"), "check must be module:function of (prompt, text, response), got 'json:laods' (module"),
        (("--check", "math:sqrt"), "check must be module:function of (prompt, text, response), got 'math:sqrt' (too many"),
    ],
)  # fmt: skip
def test_bad_input_is_told_in_one_sentence(capsys, tmp_path, arguments, sentence):
    (tmp_path / "compare.yaml").write_text("as it was")
    assert complaint(capsys, *arguments, "--out", str(tmp_path)).startswith(f"compare.py: {sentence}")
    assert (tmp_path / "compare.yaml").read_text() == "as it was"


@pytest.mark.parametrize(
    ("name", "lines", "sentence"),
    [
        ("absent.jsonl", None, "absent.jsonl"),
        ("empty.jsonl", [], "prompts must hold at least one prompt of task countdown3, got none in"),
        ("bad.jsonl", ['{"input": "2,3,4,24"}', '{"input": "2,3'], "bad.jsonl, line 2: line must be JSON"),
        ("short.jsonl", ['{"input": "2,3"}'], "short.jsonl, line 1: countdown3 prompt must be 4 whole numbers"),
    ],
)
def test_a_bad_file_of_prompts_is_named_with_its_line(capsys, tmp_path, tiny, name, lines, sentence):
    file = tmp_path / name
    if lines is not None:
        file.write_text("\n".join(lines) + "\n")
    out = str(tmp_path / "out")
    printed = complaint(capsys, "--task", "countdown3", "--prompts", str(file), "--model", str(tiny), "--out", out)
    assert sentence in printed


def test_bad_input_is_judged_before_torch_is_imported(tmp_path):
    printed = early_complaint("compare.py", *CONFIG, "--task", "x", "--out", str(tmp_path))
    assert printed.startswith("compare.py: task must be one of sudoku, ")


def test_a_run_writes_its_results_and_goes_on_where_it_was(capsys, tmp_path, tiny):
    small = tmp_path / "small.yaml"
    small.write_text(
        "catalogue:\n- {name: sequential, kind: headless, policy: sequential}\n"
        "- {name: threshold, kind: headless, policy: threshold, dial: threshold, values: [0.9]}\n"
        "- {name: learned, kind: learned, policy: learned, dial: risk_bound, values: [0.1]}\n"
    )
    arguments = ["--config", str(small), "--task", "countdown3,countdown4", "--num_prompts", "3", "--num_dev", "2"]
    arguments += ["--model", str(tiny), "--out", str(tmp_path), "--device", "cpu", "--seed", "5"]
    run(compare_command.compare, arguments)
    printed = capsys.readouterr().out
    found = json.loads((tmp_path / "comparison.json").read_text())
    assert {row["arm"] for row in found["results"]} == {"sequential", "threshold"}
    assert {(row["task"], row["split"], row["n"]) for row in found["results"]} == {
        (task, split, n) for task in ("countdown3", "countdown4") for split, n in (("dev", 2), ("test", 3))
    }
    assert found["environment"].keys() == {"command", "commit", "seed", "device", "versions"}
    assert found["environment"]["versions"].keys() == {"python", "torch", "transformers"}
    assert found["environment"]["seed"] == 5
    assert printed.startswith("## countdown3, 3 test prompts")
    assert all(len(line) <= 100 for line in printed.splitlines() if str(tmp_path) not in line)
    for arm in ("sequential", "threshold"):
        table = (tmp_path / "table.md").read_text().replace("\\*", "*").splitlines()
        row = next(line for line in table if line.startswith(f"| {arm}"))
        shown = next(line for line in printed.splitlines() if line.startswith(arm))
        assert shown.split() == row.replace("|", " ").split()[: len(shown.split()) - 1] + shown.split()[-1:]
    assert "left out for want of a scoring head: learned\n" in printed
    files = {"comparison.json", "table.md", *TEXTS_AND_ROUNDS}
    named = printed[printed.index("written to ") :]
    assert all(name in named and (tmp_path / name).is_file() for name in files)
    assert ("no report.html: " in named) or (tmp_path / "report.html").is_file()
    assert (tmp_path / "compare.yaml").is_file()
    lines, texts = (tmp_path / "countdown3.jsonl").read_text(), (tmp_path / "texts.jsonl.gz").read_bytes()
    rounds = (tmp_path / "traces.jsonl.gz").read_bytes()
    run(compare_command.compare, arguments)
    assert (tmp_path / "texts.jsonl.gz").read_bytes() == texts
    assert (tmp_path / "traces.jsonl.gz").read_bytes() == rounds
    assert (tmp_path / "countdown3.jsonl").read_text() == lines
    assert json.loads((tmp_path / "comparison.json").read_text())["results"] == found["results"]


TEXTS_AND_ROUNDS = ["texts.jsonl.gz", "traces.jsonl.gz"]
OWN = "catalogue:\n- {name: sequential, kind: headless, policy: sequential}\n"
OWN += "- {name: threshold, kind: headless, policy: threshold, dial: threshold, values: [0.001, 1.0]}\n"


def compare_own(tmp_path: Path, tiny: Path, *more: str) -> tuple[dict, list[dict]]:
    """comparison.json and texts of a comparison on six prompts of a user's own."""
    (tmp_path / "own.yaml").write_text(OWN)
    rows = [{"prompt": f"{number},2,3,4", "response": "7"} for number in range(6)]
    (tmp_path / "mine.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    arguments = ["--config", str(tmp_path / "own.yaml"), "--task", "text", "--prompts", str(tmp_path / "mine.jsonl")]
    arguments += ["--model", str(tiny), "--gen_length", "8", "--block_length", "8", "--device", "cpu"]
    run(compare_command.compare, [*arguments, "--report", "false", "--out", str(tmp_path / "out"), *more])
    texts = gzip.decompress((tmp_path / "out" / "texts.jsonl.gz").read_bytes()).decode().splitlines()
    return json.loads((tmp_path / "out" / "comparison.json").read_text()), [json.loads(line) for line in texts]


def test_what_an_earlier_comparison_left_is_not_said_to_be_written(tmp_path, tiny, capsys):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "report.html").write_text("of other arms")
    (tmp_path / "out" / "sudoku.png").write_text("of another task")
    compare_own(tmp_path, tiny, "--arms", "sequential")
    named = " ".join(capsys.readouterr().out.splitlines()).partition("written to ")[2]
    names, _, earlier = named.partition(" of an earlier comparison: ")
    assert names.split(": ")[1].split(", ") == ["comparison.json", "table.md", *TEXTS_AND_ROUNDS, "text.png"]
    assert earlier == "report.html"


def test_prompts_without_a_checker_are_judged_by_agreement_with_the_reference(tmp_path, tiny, capsys):
    found, texts = compare_own(tmp_path, tiny)
    assert "text has no checker: accuracy is the share of texts that are those of sequential" in capsys.readouterr().out
    of = {(row["arm"], row["dial"]): row for row in found["results"] if row["split"] == "test"}
    assert of["sequential", None]["accuracy"]["estimate"] == 1
    assert of["threshold", 1.0]["accuracy"]["estimate"] == 1  # the best position alone, round by round
    assert {row["right"] for row in texts} == {None}
    careful, shown = ([row["text"] for row in texts if row["arm"] == arm] for arm in ("sequential", "threshold"))
    dial = next(row["dial_shown"] for row in found["curves"] if row["arm"] == "threshold")
    same = sum(a == b for a, b in zip(careful, shown, strict=True)) / len(careful)
    assert of["threshold", dial]["accuracy"]["estimate"] == pytest.approx(same)


def test_a_checker_of_ones_own_judges(tmp_path, tiny, monkeypatch):
    (tmp_path / "my_checker.py").write_text(
        "def odd(prompt, text, response):\n    assert response == '7'\n    return int(prompt[0]) % 2 == 1\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    found, texts = compare_own(tmp_path, tiny, "--check", "my_checker:odd")
    assert all(row["right"] == int(row["prompt"][0]) % 2 for row in texts)
    rights = [row["right"] for row in texts if row["arm"] == "sequential"]
    row = next(row for row in found["results"] if (row["arm"], row["split"]) == ("sequential", "test"))
    assert row["accuracy"]["estimate"] == pytest.approx(sum(rights) / len(rights))


@pytest.mark.parametrize(
    ("said", "found"),
    [
        ("True", True),
        ("numpy.bool_(0)", False),
        ("'no'", "own_check:check must return True or False, got 'no' for test prompt 2 of task text"),
        ("None", "own_check:check must return True or False, got None for test prompt 2 of task text"),
        ("1", "own_check:check must return True or False, got 1 for test prompt 2 of task text"),
        (
            "[][0]",
            "own_check:check must judge every text, got IndexError: list index out of range for test prompt 2 of",
        ),
    ],
)
def test_a_checker_that_says_neither_yes_nor_no_is_refused(tmp_path, monkeypatch, said, found):
    (tmp_path / "own_check.py").write_text(f"import numpy\n\ndef check(prompt, text, response):\n    return {said}\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "own_check", raising=False)
    examples = [Example(f"{n}?", "") for n in range(3)]
    checked = checked_by(get("text"), examples[:1], examples[1:], own=find_check("own_check:check"))
    if isinstance(found, bool):
        assert checked.check("2?", "an answer") is found
        return
    with pytest.raises(ValueError, match=f"^check {re.escape(found)}"):
        checked.check("2?", "an answer")


@pytest.mark.parametrize(
    ("space", "sentence"),
    [
        ("values: [0.9], values_for: {countdown4: [1.5]}", "threshold must lie in (0, 1], got 1.5, in arm late"),
        (
            "values: [0.9], tune: {looks: [1]}",
            "settings of policy threshold must be among threshold, got looks, in arm",
        ),
    ],
)
def test_settings_that_an_arm_refuses_are_told_before_any_arm_runs(capsys, tmp_path, tiny, space, sentence):
    small = tmp_path / "small.yaml"
    small.write_text(
        "catalogue:\n- {name: sequential, kind: headless, policy: sequential}\n"
        f"- {{name: late, kind: headless, policy: threshold, dial: threshold, {space}}}\n"
    )
    arguments = ["--config", str(small), "--task", "countdown3,countdown4", "--model", str(tiny), "--tuning", "1"]
    arguments += ["--num_prompts", "3", "--num_dev", "2"]
    assert complaint(capsys, *arguments, "--out", str(tmp_path / "out")).startswith(f"compare.py: {sentence}")
    assert not list((tmp_path / "out").glob("*.jsonl"))


def test_prompts_of_a_file_are_the_test_prompts(tmp_path, tiny):
    dev = draw(get("countdown3"), "dev", 2, seed=0)
    file = tmp_path / "mine.txt"
    lines = [f"{dev[0].prompt}||", "2,3,4,24||", "2,3,4,24||", "1,2,3,6||", "5,6,7,18||"]
    file.write_text("\n".join(lines) + "\n")
    call = check_compare(
        [SEQUENTIAL, THRESHOLD], None, "countdown3", prompts=str(file), num_prompts=2, num_dev=2, model=str(tiny)
    )
    problems, check = call.tasks[0].problems, call.tasks[0].check
    assert problems.test == ("2,3,4,24", "1,2,3,6")  # a dev prompt and a copy are left out
    assert problems.dev == tuple(example.prompt for example in dev)
    assert problems.references == {}
    assert check(dev[0].prompt, dev[0].response)
    assert not check("2,3,4,24", dev[0].response)


def test_learned_arms_are_left_out_and_said_so_without_a_head(tiny):
    learned = Arm("learned", "learned", "learned", "risk_bound", (0.01,))
    options = {"num_prompts": 1, "num_dev": 1, "model": str(tiny)}
    call = check_compare([SEQUENTIAL, learned], None, "countdown3", **options)
    assert (call.arms, call.left_out) == ((SEQUENTIAL,), ("learned",))
    with pytest.raises(ValueError, match="arm learned must have a scoring head"):
        check_compare([SEQUENTIAL, learned], "learned", "countdown3", **options)


def test_a_parity_study_runs_its_own_arms_and_says_which_it_leaves_out(tmp_path, tiny):
    (tmp_path / "mine.jsonl").write_text("".join(f'{{"prompt": "{n}, 2"}}\n' for n in range(4)))
    arms = [THRESHOLD, Arm("ete", "headless", "ete"), Arm("control", "control", "random-parity")]
    how = {"num_prompts": 2, "num_dev": 1, "model": str(tiny), "parity": 2, "use_cache": "dual"}
    call = check_compare(arms, None, "text", prompts=str(tmp_path / "mine.jsonl"), **how)
    assert [arm.name for arm in call.arms] == [
        "sequential",
        "ete",
        "control",
    ]  # texts are held against those of the first
    assert {arm.settings["use_cache"] for arm in call.arms} == {"dual"}
    assert tasks_that_fit(replace(call, tasks=()), None)[1] == ["left out of the parity study: threshold\n"]
    judged = check_compare([SEQUENTIAL, *arms], None, "countdown3", **how)
    assert ([arm.name for arm in judged.arms], judged.aside) == (["ete", "control"], ("sequential", "threshold"))


def test_settings_for_a_task_that_is_none_are_refused(tiny):
    arm = Arm("threshold", "headless", "threshold", "threshold", (0.9,), values_for={"suduko": (0.8,)})
    with pytest.raises(ValueError, match=r"^task must be one of sudoku, "):
        check_compare([SEQUENTIAL, arm], None, "countdown3", num_prompts=1, num_dev=1, model=str(tiny))


@pytest.mark.parametrize(
    ("space", "sentence"),
    [
        (
            {"settings": {"block_length": 7}},
            "block_length of arm own must divide gen_length 24 of task countdown3, got 7",
        ),
        (
            {"settings": {"block_length": True}},
            "block_length of arm own must divide gen_length 24 of task countdown3, got True",
        ),
        (
            {"dial": "block_length", "values": (8.0,)},
            "block_length of arm own must divide gen_length 24 of .*, got 8.0",
        ),
        ({"tune_for": {"countdown3": {"block_length": [None, 7]}}}, "block_length of arm own must divide .*, got 7"),
        ({"tune": {"block_length": [[8]]}}, r"block_length of arm own must divide .*, got \[8\]"),
        ({"settings": {"use_cache": "nosuch"}}, "use_cache of arm own must be none, prefix or dual, got 'nosuch'"),
        ({"tune": {"use_cache": ["dual", 3]}}, "use_cache of arm own must be none, prefix or dual, got 3"),
        ({"tune": {"threshold": []}}, "tune threshold of arm own must hold at least one value, got none"),
        (
            {"tune_for": {"sudoku": {"threshold": []}}},
            "tune threshold of arm own must hold at least one value, got none",
        ),
    ],
)
def test_settings_that_an_arm_cannot_decode_with_are_refused(tiny, space, sentence):
    with pytest.raises(ValueError, match=f"^{sentence}$"):
        check_compare(
            [Arm("own", "headless", "threshold", **space)],
            None,
            "countdown3",
            num_prompts=1,
            num_dev=1,
            model=str(tiny),
        )


def test_splits_hold_different_prompts_and_the_answers_of_unique_tasks(tiny):
    (checked,) = check_compare([SEQUENTIAL], None, "multiplication", num_prompts=5, num_dev=4, model=str(tiny)).tasks
    problems, task = checked.problems, get("multiplication")
    assert (len(set(problems.dev)), len(set(problems.test))) == (4, 5)
    assert {task.split_of(prompt) for prompt in problems.dev} == {"dev"}
    assert {task.split_of(prompt) for prompt in problems.test} == {"test"}
    assert all(checked.check(prompt, problems.references[prompt]) for prompt in (*problems.dev, *problems.test))


@pytest.mark.parametrize("name", ["default", "full", "full-gsm", "parity"])
def test_every_config_declares_arms_that_can_be_selected(name: str):
    parser = parser_of(compare_command.compare)
    options = parser.instantiate(parser.parse_args(["--config", str(ROOT / f"configs/compare/{name}.yaml")]))
    needed = {"learned"} if name.startswith("full") else {"learned-parity", "random-parity"}
    assert {arm.name for arm in options.catalogue} >= {"ete", *needed}
    assert all(len(arm.values) <= 5 for arm in options.catalogue)
    if name.startswith("full"):
        assert {len(arm.values) for arm in options.catalogue if arm.dial} == {5}
        assert {name for arm in options.catalogue for name in arm.values_for} <= set(options.task.split(","))


def test_a_cache_is_of_every_arm_that_does_not_say_it(tiny):
    from train.commands.compare import check_compare

    own = Arm("own", "headless", "threshold", settings={"use_cache": "prefix"})
    arms = [Arm("sequential", "headless", "sequential"), own]
    how = {"num_prompts": 1, "num_dev": 1, "model": str(tiny)}
    call = check_compare(arms, None, "countdown3", use_cache="dual", **how)
    assert [arm.settings for arm in call.arms] == [{"use_cache": "dual"}, {"use_cache": "prefix"}]
    assert [arm.cells[0].policy_settings for arm in call.arms] == [{}, {}]
    plain = check_compare(arms, None, "countdown3", **how)
    assert len({call.arms[0].cells[0].key, plain.arms[0].cells[0].key}) == 2
