"""Readers of what others wrote, on texts, rows and settings drawn at random."""

from __future__ import annotations

import contextlib
import gzip
import inspect
import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

import calibrate
import compare
import generate
from decoding.comparison.calibration import Calibration
from models.checkpoints.adapter import _read_settings
from models.checkpoints.families import family_of, native_config
from models.checkpoints.json_files import parse, read_lines, read_object
from models.checkpoints.manifest import OWN, read_manifest
from models.heads.cascade import CascadeConfig
from models.heads.config import HeadConfig
from models.heads.defaults import read_defaults
from models.heads.saved_part import read_fitted
from models.heads.scoring_head import read_config
from tests.properties.contract import ANY_TEXT, DEEP, JSON, LETTERS, SCALARS, cases, exit_code, value_or_sentence
from train.commands.answering.prompt_file import IDS, SUFFIXES, read_prompts
from train.commands.command_line import run, shipped
from train.tasks import BENCHMARKS, RENUMBERED, TASKS, get
from train.tasks.benchmarks.code_text import find_code
from train.tasks.question import CONTEXT, INSTRUCTION, OPTIONS, OTHERS
from train.tasks.task import Example

EVERY_TASK = [*TASKS, *RENUMBERED, *BENCHMARKS]
FIELDS = [
    *(
        "prompt",
        "input",
        "question",
        "text",
        "quiz",
        "problem",
        "answer",
        "output",
        "response",
        "solution",
        "completion",
    ),
    *(
        "test",
        "tests",
        "test_list",
        "entry_point",
        "answerKey",
        "answer_index",
        "level",
        "messages",
        "code",
        "canonical_solution",
    ),
    *(INSTRUCTION, *CONTEXT, *OPTIONS, *OTHERS, *IDS),
]
PUZZLES = st.sampled_from(["1,2,3,6", "4,4,4,12", "0" * 81, "12*34", "3,1,2", "cat dog", "2+3", "" * 81, "9,9,9,9,9"])
FIELD = st.sampled_from(FIELDS)
ROWS = st.dictionaries(FIELD, LETTERS | PUZZLES | JSON, max_size=4)
LINES = ROWS.map(lambda row: json.dumps(row)) | ANY_TEXT | LETTERS | DEEP | st.tuples(PUZZLES, ANY_TEXT).map("||".join)


def write(folder: Path, name: str, lines: list[str]) -> Path:
    """A file of lines; half letters as bytes that are no UTF-8."""
    file = folder / name
    data = "\n".join(lines).encode("utf-8", "surrogatepass")
    if name.endswith("gz"):
        data = gzip.compress(data, mtime=0)
    file.write_bytes(data)
    return file


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("drawn")


@pytest.mark.parametrize("suffix", SUFFIXES)
@cases(20)
@given(lines=st.lists(LINES, max_size=3), task=st.none() | st.sampled_from(EVERY_TASK))
def test_a_prompts_file_is_read_or_refused(folder, suffix, lines, task):
    file = write(folder, f"p{suffix}", lines)
    found = value_or_sentence(lambda: list(read_prompts(str(file), None if task is None else get(task))))
    for asked in found or ():
        assert isinstance(asked.id, str | int)
        json.dumps([asked.id, asked.prompt]).encode()
        assert asked.prompt if isinstance(asked.prompt, str) else all(map(dict, asked.prompt))
        assert isinstance(asked.example, Example)


@pytest.mark.parametrize("task", EVERY_TASK)
@cases(10)
@given(lines=st.lists(LINES, max_size=2), suffix=st.sampled_from([".jsonl", ".txt", ".jsonl.gz"]))
def test_a_tasks_file_is_read_or_refused(folder, task, lines, suffix):
    file = write(folder, f"t{suffix}", lines)
    for example in value_or_sentence(lambda: list(get(task).read(file))) or ():
        assert all(isinstance(text, str) for text in (example.prompt, example.response, example.answer))
        assert get(task).split_of(example.prompt) in ("train", "dev", "test")


PIECES = (
    "#### 5", "\\boxed{", "\\boxed{\\frac{1}{2}}", "Answer: ", "(B)", "The answer is ", "1,000", "1e999", "9" * 400, "1/0",
    "\\frac{1}{0}", "```python\n", "```", "def f(x):\n    return x\n", "from __future__ import annotations\n", "4+4=8,8+4=12",
    "=", "((((", "-", "%", "$", "٣", "²", "½", "Ⅷ", "10^10^10", "2**10**10", "I", "A.", "or", "not", "\n\n", "0" * 81,
)  # fmt: skip
ANSWERS = st.lists(LETTERS | ANY_TEXT | st.sampled_from(PIECES), max_size=6)


KNOWN = {
    "gsm8k": ("5", "-3", "1000"), "math500": ("\\frac{1}{2}", "(3, 4)", "x + 1", "90^\\circ"), "aime24": ("25",), "aime25": ("7",),
    "mmlu-pro": ("B", "J"), "gsm8k-renumbered": ("5",), "gsm8k-renumbered-heads": ("5",),
}  # fmt: skip
"""What the readers of the benchmarks make of answers."""


@pytest.mark.parametrize("task", EVERY_TASK)
@cases(10)
@given(
    parts=ANSWERS, joint=st.sampled_from(["", " ", "\n"]), prompt=PUZZLES | LETTERS, response=PUZZLES | LETTERS, data=st.data()
)  # fmt: skip
def test_an_answer_is_judged_or_refused(task, parts, joint, prompt, response, data):
    example = Example(prompt, response, data.draw(st.sampled_from(KNOWN.get(task, ("",)))))
    judged = value_or_sentence(lambda: get(task).check(example, joint.join(parts)))
    assert judged is None or isinstance(judged, bool)


@cases(60)
@given(parts=ANSWERS, joint=st.sampled_from(["", " ", "\n"]), name=st.sampled_from(["f", "has_close", ""]))
def test_the_program_of_an_answer_is_found_or_there_is_none(parts, joint, name):
    found = value_or_sentence(lambda: find_code(joint.join(parts), (name,) if name else ()))
    assert found is not None


@cases(60)
@given(value=JSON, text=LINES)
def test_json_is_parsed_whole_or_refused(folder, value, text):
    found = value_or_sentence(lambda: parse(text))
    if found is not None:
        json.dumps(found, allow_nan=False)
    for name, content in (("a.json", json.dumps(value)), ("b.json", text)):
        file = folder / name
        file.write_bytes(content.encode("utf-8", "surrogatepass"))
        found = value_or_sentence(lambda file=file: read_object(file))
        assert found is None or isinstance(found, dict)
        rows = value_or_sentence(lambda file=file: read_lines(file))
        assert rows is None or all(isinstance(row, dict) for row in rows)


CONFIGS = {name: json.loads((shipped(f"checkpoints/{name}") / "config.json").read_text()) for name in ("reason-7m",)}
CONFIGS |= {
    name: json.loads((Path(__file__).parents[1] / "golden" / name / "config.json").read_text())
    for name in ("llada", "dream")
}


@pytest.mark.parametrize("name", CONFIGS)
@cases(25)
@given(data=st.data())
def test_a_config_is_a_model_of_its_sizes_or_refused(name, data):
    known = CONFIGS[name]
    extra = ["rope_scaling", "rope_parameters", "n_kv_heads", "num_experts", "rope_theta", "mlp_ratio"]
    names = data.draw(st.lists(st.sampled_from([*known, *extra]), min_size=1, max_size=3, unique=True))
    rope = st.fixed_dictionaries(
        {}, optional={"rope_type": SCALARS, "factor": SCALARS, "rope_theta": SCALARS, "type": SCALARS}
    )
    config = known | {one: data.draw(JSON | rope) for one in names}
    for one in data.draw(st.lists(st.sampled_from([*known]), max_size=1)):
        del config[one]
    native = value_or_sentence(lambda: native_config(family_of(config), config))
    if native is not None:
        assert native.hidden_size % native.num_attention_heads == 0
        assert native.is_causal is False


@cases(60)
@given(
    changes=st.dictionaries(
        st.sampled_from(
            ["peft_type", "r", "lora_alpha", "bias", "rank_pattern", "alpha_pattern", "init_lora_weights", "use_dora"]
        ),
        JSON,
        max_size=3,
    ),
    more=st.dictionaries(LETTERS, SCALARS, max_size=1),
)
def test_settings_of_an_adapter_are_plain_or_refused(folder, changes, more):
    settings = {"peft_type": "LORA", "r": 2, "lora_alpha": 4} | changes | more
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    found = value_or_sentence(lambda: _read_settings(folder))
    assert found is None or found["peft_type"] == "LORA"


@cases(60)
@given(data=st.data(), which=st.sampled_from([HeadConfig, CascadeConfig]))
def test_the_config_of_a_saved_part_is_whole_or_refused(folder, data, which):
    fields = [*which.__dataclass_fields__]
    known = {"variant": "linear", "feature_names": ["confidence"]} if which is HeadConfig else {}
    raw = known | data.draw(st.dictionaries(st.sampled_from(fields), JSON, max_size=3))
    text = data.draw(st.just(json.dumps(raw)) | LINES)
    saved = {"config": text} if data.draw(st.integers(0, 9)) else {"other": "x"}
    file = folder / "head.safetensors"
    try:
        save_file({"a": torch.zeros(1)}, file, metadata=saved)
    except (UnicodeEncodeError, ValueError):  # half letters, which a header cannot hold
        return
    if which is HeadConfig:
        found = value_or_sentence(lambda: read_config(folder))
    else:
        found = value_or_sentence(lambda: read_fitted(file, "cascade", lambda raw: which(**raw)))
    assert found is None or isinstance(found, which)


@cases(60)
@given(value=st.fixed_dictionaries({}, optional={"rule": JSON, "risk_bound": SCALARS, "looks": SCALARS}) | JSON)
def test_defaults_of_a_head_are_settings_or_refused(folder, value):
    (folder / "defaults.json").write_text(json.dumps(value))
    found = value_or_sentence(lambda: read_defaults(folder))
    assert found is None or (0 < found.risk_bound <= 1 and found.looks >= 0)


@cases(60)
@given(
    value=st.fixed_dictionaries(
        {},
        optional={
            "kind": st.sampled_from([*OWN]) | SCALARS,
            "files": st.dictionaries(LETTERS, SCALARS, max_size=2) | JSON,
            "tensors": st.dictionaries(LETTERS, LETTERS, max_size=2) | JSON,
            "base": LETTERS | SCALARS,
            "shards": st.lists(LETTERS, max_size=2) | JSON,
        },
    )
    | JSON
)
def test_a_manifest_is_ours_and_whole_or_of_another_tool_or_refused(folder, value):
    (folder / "checksums.json").write_text(json.dumps(value))
    found = value_or_sentence(lambda: read_manifest(folder))
    assert not found or (found["kind"] in OWN and isinstance(found["files"], dict))


@cases(40)
@given(value=JSON)
def test_a_calibration_is_a_promise_or_refused(folder, value):
    (folder / "calibration.json").write_text(json.dumps(value))
    assert value_or_sentence(lambda: Calibration.load(folder / "calibration.json")) is None


COMMANDS = {
    "compare": (compare.compare, "configs/compare/default.yaml", "run_compare"),
    "generate": (generate.generate, None, "run_generate"),
    "calibrate": (calibrate.calibrate, None, "run_calibrate"),
}
SOUND = {"generate": {"prompt": ["1,2,3,6"]}, "calibrate": {"policy": "threshold", "task": "countdown3"}}


@pytest.mark.parametrize("name", COMMANDS)
@cases(6)
@given(data=st.data())
def test_a_config_of_a_command_is_obeyed_or_refused_in_one_line(folder, name, data):
    function, default, runs = COMMANDS[name]
    known: dict[str, Any] = (
        dict(SOUND.get(name, {})) if default is None else yaml.safe_load(shipped(default).read_text())
    )
    names = [*inspect.signature(function).parameters]
    changes = data.draw(st.dictionaries(st.sampled_from([*names, "nosuch"]), JSON, max_size=2))
    file = folder / "config.yaml"
    text = yaml.safe_dump({**known, "out": str(folder / "out"), **changes}, allow_unicode=True)
    file.write_bytes(text.encode("utf-8", "surrogatepass"))
    module, error = sys.modules[function.__module__], io.StringIO()
    with (
        pytest.MonkeyPatch.context() as patched,
        contextlib.redirect_stderr(error),
        contextlib.redirect_stdout(io.StringIO()),
    ):
        patched.setattr(module, runs, lambda *_, **__: "")
        patched.chdir(folder)
        code = exit_code(lambda: run(function, ["--config", str(file)]))
    said = error.getvalue()
    assert code in (0, 2), said
    assert code == 0 or said.strip().count("\n") <= 1, said
