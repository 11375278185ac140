"""The recipe for an 8B model, end to end on the golden checkpoint with a tokenizer of letters in place of the published one."""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml
from tokenizers import Regex, Tokenizer, decoders, pre_tokenizers
from tokenizers.models import WordLevel
from transformers import PreTrainedTokenizerFast

from tests.complaint import complaint
from tests.train.lm_eval_task import lm_eval_task
from train.commands.command_line import run
from train.commands.console import main
from train.recipe import stages
from train.recipe.__main__ import recipe
from train.recipe.stages import Base, arguments_of, judge

pytestmark = pytest.mark.filterwarnings(  # inside Lightning
    "ignore:.*(LeafSpec|num_workers|enable_nested_tensor|number of training batches)"
)
ROOT = Path(__file__).parents[3]
CONFIG = ROOT / "configs" / "recipe" / "llada-8b.yaml"
CANVAS = {"gen_length": 8, "block_length": 8}
UNKNOWN = 126  # of the letters, which are their own codes


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    """The golden LLaDA checkpoint with a tokenizer of letters."""
    folder = tmp_path_factory.mktemp("base")
    for name in ("config.json", "generation_config.json", "model.safetensors"):
        shutil.copy(ROOT / "tests" / "golden" / "llada" / name, folder)
    letters = {chr(code): code for code in range(128)} | {"<mask>": 250, "<eos>": 251}
    tokenizer = Tokenizer(WordLevel(letters, unk_token=chr(UNKNOWN)))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    tokenizer.decoder = decoders.Fuse()
    tokens = {"mask_token": "<mask>", "eos_token": "<eos>", "pad_token": "<eos>", "unk_token": chr(UNKNOWN)}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **tokens).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def small(base, tmp_path_factory) -> Path:
    """The recipe's config with the golden base, a file of sums, and every number made small."""
    folder = tmp_path_factory.mktemp("recipe")
    file = folder / "sums.jsonl"
    rows = [{"question": f"{a}+{b}?", "answer": f"#### {a + b}"} for a in range(1, 10) for b in range(1, 10)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    told = yaml.safe_load(CONFIG.read_text())
    told |= {"model": str(base), "dtype": "float32", "device": "cpu", "out": str(folder / "out")}
    train = told["train"]
    train["tasks"]["gsm8k"] |= {"prompts": 4, "dev_prompts": 2, "prompts_file": str(file), **CANVAS}
    train["labelling"] |= {
        "states_per_prompt": 2,
        "branches": 3,
        "strata": 1,
        "finished": 1,
        "dev_branches": 3,
        "bare": 2,
    }
    train["fitting"] |= {"epochs": 1, "batch_size": 4, "variants": ["conflict"], "rank": 2, "width": 8}
    train["cascade"] |= {"minutes": 0.02, "steps": 2, "positions": 1, "blocks": 1, "rank": 2, "batch_size": 4}
    train |= {"trials": {"screen": 2, "confirm": 4, "bounds": [0.1, 0.01]}, "batch_size": 4}
    told["calibrate"] |= {
        "prompts": str(file),
        "num_prompts": 8,
        "max_loss": 0.6,
        "values": "0.1,1.0",
        "batch_size": 4,
        **CANVAS,
    }
    told["compare"] |= {
        "prompts": str(file),
        "num_prompts": 3,
        "num_dev": 2,
        "batch_size": 4,
        "report": False,
        **CANVAS,
    }
    told["lm_eval"] |= {"tasks": "sums", "include_path": str(folder), "batch_size": 2, "apply_chat_template": False}
    told["lm_eval"]["model_args"] |= {"samples": 2, **CANVAS}
    task = lm_eval_task(
        "sums",
        file,
        "exact_match",
        output_type="generate_until",
        doc_to_text="{{question}}",
        doc_to_target="{{answer}}",
        generation_kwargs={"until": ["?"], "max_gen_toks": 8},
    )
    (folder / "sums.yaml").write_text(task)
    (folder / "small.yaml").write_text(yaml.safe_dump(told))
    return folder / "small.yaml"


def here(arguments: Sequence[str]) -> int:
    """A command of a stage in this process: one of its own spends most of its time on imports."""
    with pytest.MonkeyPatch.context() as own:
        own.setattr(sys, "argv", [])
        main(arguments)
    return 0


def told_of(config: Path) -> dict[str, Any]:
    return yaml.safe_load(config.read_text())


def test_one_config_goes_from_prompts_to_a_comparison(small, capfd, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr(stages, "start", here)
        run(recipe, ["--config", str(small), "--stages", "train,calibrate,compare"])
    out = Path(told_of(small)["out"])
    head = out / "head"
    assert {file.name for file in head.iterdir()} >= {
        "head.safetensors",
        "cascade",
        "defaults.json",
        "README.md",
        "traces",
    }
    assert json.loads((out / "calibration" / "calibration.json").read_text())["policy"] == "risk-sum"
    arms = {row["arm"] for row in json.loads((out / "comparison" / "comparison.json").read_text())["results"]}
    assert arms == {"sequential", "threshold", "risk-sum", "learned"}
    weights = (head / "head.safetensors").read_bytes()
    capfd.readouterr()
    run(recipe, ["--config", str(small), "--stages", "train"])  # goes on where it was, at its end
    assert (head / "head.safetensors").read_bytes() == weights
    assert "the heads are fitted already" in capfd.readouterr().err


@pytest.mark.skipif(find_spec("lm_eval") is None, reason='lm_eval is not installed (pip install ".[eval]")')
def test_its_last_stage_scores_the_head(small):
    out = Path(told_of(small)["out"])
    if not (out / "head" / "head.safetensors").is_file():
        pytest.skip("needs the head of the test before")
    run(recipe, ["--config", str(small), "--stages", "lm_eval"])
    assert list((out / "lm-eval").rglob("results*.json"))
    assert len((out / "lm-eval" / "samples" / "samples-0.jsonl").read_text().splitlines()) > 81


def test_an_estimate_leaves_nothing_behind(small, tmp_path, capfd, monkeypatch):
    monkeypatch.setattr(stages, "start", here)
    told = told_of(small) | {"out": str(tmp_path / "out")}
    (tmp_path / "told.yaml").write_text(yaml.safe_dump(told))
    run(recipe, ["--config", str(tmp_path / "told.yaml"), "--estimate"])
    said = capfd.readouterr().out
    (line,) = [one for one in said.splitlines() if one.startswith("whole run: about")]
    assert re.search(r"comparison \d+\.\d\d\)$", line)
    assert said.endswith("not counted: what calibrate and lm_eval decode\n")
    assert not (tmp_path / "out").exists()


def test_the_harness_is_told_of_model_and_head(small):
    told = told_of(small)
    base = Base("owner/name", None, "cpu", "bfloat16", Path("out"))
    given = arguments_of(base, "lm_eval", told["lm_eval"], Path("unused"))
    assert given[:2] == ["lm-eval", "--model_args"]
    model = dict(one.split("=") for one in given[2].split(","))
    assert model["pretrained"] == "owner/name"
    assert model["head"] == str(Path("out") / "head")
    assert (model["gen_length"], model["use_cache"]) == ("8", "dual")
    assert given[given.index("--tasks") + 1] == "sums"
    assert "--apply_chat_template" not in given
    chat = arguments_of(base, "lm_eval", {**told["lm_eval"], "apply_chat_template": True}, Path("unused"))
    assert chat[-1] == "--apply_chat_template" or chat[chat.index("--apply_chat_template") + 1].startswith("--")


@pytest.mark.parametrize(
    ("stage", "wrong", "said"),
    [
        ("compare", {"num_promts": 3}, "compare must hold options of compare.py, got: "),
        ("train", {"batch_size": "many"}, "train must hold options of train.py, got: "),
        (
            "calibrate",
            {"seed": -1},
            "calibrate must hold options of calibrate.py, got: seed must be at least 0, got -1",
        ),
        ("calibrate", {"head": "mine"}, "calibrate must leave head to the recipe, got 'mine'"),
        ("compare", {"prompts": "none.jsonl"}, "prompts of compare must be a file or hub, got none.jsonl"),
        ("lm_eval", {"tasks": None}, "tasks of lm_eval must be names with commas between them, got None"),
    ],
)
def test_a_wrong_section_is_refused_before_anything_runs(small, tmp_path, capsys, stage, wrong, said):
    told = told_of(small) | {"out": str(tmp_path / "out")}
    told[stage] |= wrong
    (tmp_path / "told.yaml").write_text(yaml.safe_dump(told))
    assert said in complaint(capsys, recipe, "--config", str(tmp_path / "told.yaml"), "--stages", stage)
    assert not (tmp_path / "out").exists()


def test_a_stage_that_is_none_is_refused(small, capsys):
    assert "stages must be among train, calibrate, compare, lm_eval, got 'fit'" in complaint(
        capsys, recipe, "--config", str(small), "--stages", "fit"
    )


def test_the_config_for_8b_is_judged_as_it_stands(tmp_path, monkeypatch):
    """But for the files that a user brings, and the harness."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data" / "gsm8k").mkdir(parents=True)
    for split in ("train", "test"):
        (tmp_path / "data" / "gsm8k" / f"{split}.jsonl").write_text('{"question": "1+1?", "answer": "#### 2"}\n')
    told = told_of(CONFIG)
    sections = {name: told[name] for name in ("train", "calibrate", "compare")}
    judge(Base(told["model"], None, None, told["dtype"], Path("out")), sections)
