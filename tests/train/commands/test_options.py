"""Options as people type them: settings of the policy, lists, help, the nearest name; and the pages that show them."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import generate as generate_command
from decoding.names import POLICIES
from train.commands.command_line import parser_of, run, with_flags
from train.commands.folders import find_head
from train.commands.options.listing import listing
from train.commands.options.policy_settings import describe
from train.commands.options.spelling import options_of, spread

ROOT = Path(__file__).parents[3]


def written(*arguments: str) -> list[str]:
    return spread(generate_command.generate, arguments)


def test_settings_of_policies_are_options():
    assert written("--policy", "ete", "--gamma", ".7") == ["--policy", "ete", "--settings.gamma=.7"]
    assert written("--risk-bound=.1", "--task", "sudoku") == ["--settings.risk_bound=.1", "--task", "sudoku"]
    assert written("--implicit", "--watch") == ["--settings.implicit=true", "--watch"]
    assert written("--max_new_tokens", "8") == ["--settings.max_new_tokens=8"]
    assert written("--settings.gamma", "1") == ["--settings.gamma", "1"]


def test_a_setting_typed_beside_one_of_its_name_is_refused():
    both = ["--policy", "threshold", "--threshold", "0.8", "--settings", '{"threshold": 0.9}']
    with pytest.raises(ValueError, match="threshold must be given once, got it twice with settings"):
        spread(generate_command.generate, both)
    spread(generate_command.generate, [*both[:4], "--settings", '{"temperature": 0}'])


def test_repeated_prompts_stay_what_they_are():
    texts = ["null", "[1]", "1: 2", "# no", 'say "hi"', "😀\x7f\ufffe\u2028"]
    given = [one for text in texts for one in ("--prompt", text)]
    options = parser_of(generate_command.generate).parse_args(written(*given))
    assert options.prompt == texts


def test_a_value_may_look_like_anything_but_an_option():
    assert list(options_of(["a", "--b", "-1", "--c=--d", "--e"])) == [("", "a"), ("b", "-1"), ("c", "--d"), ("e", None)]


@pytest.mark.parametrize("name", POLICIES)
def test_every_setting_is_described_as_the_class_has_it(name):
    from dataclasses import MISSING, fields
    from importlib import import_module

    module, _, kind = POLICIES[name].home.partition(":")
    found = {f.name: f for f in fields(getattr(import_module(module), kind))}
    described = describe(name)
    assert described.summary.endswith((".", ":"))
    hidden = {*POLICIES[name].fixed, "head"} | {n for n, f in found.items() if not f.repr}
    assert set(described.settings) == set(found) - hidden
    for setting in described.settings.values():
        default = found[setting.name].default
        assert setting.default == ("" if default is MISSING else repr(default))
        assert setting.meaning.endswith("."), setting.name  # whole, not cut at a line that looks like a name


def test_a_policy_of_ones_own_is_described_too(tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text(
        "from dataclasses import dataclass\nfrom decoding.policies.threshold import Threshold\n"
        "from decoding.policy import Policy\n\n@dataclass(frozen=True)\nclass Mine(Policy):\n"
        '    """Wait.\n\n    Args:\n        patience: rounds.\n    """\n\n    patience: int = 3\n'
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    assert describe("mine:Mine").settings["patience"].meaning == "rounds."
    assert written("--policy", "mine:Mine", "--patience", "2")[-1] == "--settings.patience=2"


def test_lists_fit_a_terminal_and_name_everything():
    for kind in ("policies", "settings"):
        assert max(map(len, listing(kind).splitlines())) <= 100
        assert all(f"\n{name} " in f"\n{listing(kind)}" for name in POLICIES)
    assert listing("policies", "quota").endswith("Settings: order, steps (the dial).")
    assert listing("policies", "random").endswith("Fixed: order is random.")
    assert "--threshold" in listing("settings", "threshold")
    assert "countdown3" in listing("tasks")
    assert re.search(
        r"--rule +name of a policy, default what the other settings mean,", listing("settings", "verified")
    )


def test_help_ends_with_the_settings_of_the_policy(capsys):
    with pytest.raises(SystemExit) as ended:
        run(generate_command.generate, ["--help", "--policy", "threshold"])
    assert ended.value.code == 0
    last = "--threshold              float, default 0.9: probability in (0, 1]. The dial."
    assert capsys.readouterr().out.rstrip().endswith(last)


def test_lists_need_no_torch():
    code = "import sys, runpy; sys.argv = ['generate.py', '--list', 'settings']\n"
    code += "runpy.run_path('generate.py', run_name='__main__')\nprint('torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120, check=True
    )
    assert done.stdout.splitlines()[-1] == "False"


def test_the_head_of_a_model_is_found_by_its_weights(tiny, tmp_path):
    base, head = ROOT / "checkpoints/reason-7m", str(ROOT / "checkpoints/reason-7m-head")
    assert find_head(None) == find_head(str(base)) == head
    for file in base.iterdir():
        if file.is_file():
            (tmp_path / file.name).write_bytes(file.read_bytes())
    assert find_head(str(tmp_path)) == head  # a copy under another name
    weights = bytearray((tmp_path / "model.safetensors").read_bytes())
    weights[-2] ^= 1
    (tmp_path / "model.safetensors").write_bytes(weights)
    assert find_head(str(tmp_path)) is None
    assert find_head(str(tiny)) is None
    assert find_head(str(base), adapter="somewhere") is None
    assert find_head("GSAI-ML/LLaDA-8B-Instruct") is None


PAGE = (ROOT / "docs/generate.md").read_text(encoding="utf-8")
LINES = re.findall(r"^python generate\.py .*$", PAGE, re.M)


@pytest.mark.parametrize("line", LINES)
def test_lines_of_the_page_parse(line):
    given = with_flags(generate_command.generate, written(*shlex.split(line)[2:]))
    parser_of(generate_command.generate).parse_args(given)


@pytest.mark.parametrize("code", re.findall(r"^```python\n(.*?)^```", PAGE, re.M | re.S))
def test_python_of_the_page_runs(code, monkeypatch):
    monkeypatch.chdir(ROOT)
    exec(compile(code, "generate.md", "exec"), {})
