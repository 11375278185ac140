"""The commands: bad input ends in one sentence and exit code 2 before torch is imported; good input in an answer."""

import io
import json
import re
from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

import generate as generate_command
from models.toys.toy import TableDenoiser
from tests.complaint import complaint, early_complaint
from train.base.export import export
from train.commands.command_line import parser_of, run, shipped, with_flags
from train.commands.screen import Piece, Screen, wrap

ROOT = Path(__file__).parents[1]
TOKENIZER = shipped("checkpoints/reason-7m")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> Path:
    """A LLaDA checkpoint of two small blocks with random weights and the shipped tokenizer."""
    folder = tmp_path_factory.mktemp("tiny")
    torch.manual_seed(0)
    rope = {"rope_type": "default", "rope_theta": 1e4}
    words = AutoTokenizer.from_pretrained(TOKENIZER)
    config = LlamaConfig(
        vocab_size=len(words), hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=2, max_position_embeddings=128, rope_parameters=rope, tie_word_embeddings=False,
    )  # fmt: skip
    export(
        LlamaForCausalLM(config), folder, tokenizer=TOKENIZER, mask_id=words.mask_token_id, eos_id=words.eos_token_id
    )
    return folder


SUM = ("--prompt", "2,3,4,24", "--task", "countdown3")
BAD_INPUT = [
    (("--prompt", "1", "--task", "suduko"), "task must be one of sudoku, "),
    (("--prompt", "2,3", "--task", "countdown3"), "countdown3 prompt must be 4 whole numbers joined by commas, got '2,3'"),
    (("--prompt", "1", "--policy", "tea"), "policy must be one of sequential, "),
    (("--prompt", "1", "--treshold", ".9"), "option must be one that --help or --list settings names, got "),
    (("--prompt", "1", "--policy", "threshold", "--gamma", ".9"), "settings of policy threshold must be among thre"),
    (("--prompt", "1", "--samples", "0", "--policy", "ete"), "samples must be at least 1, got 0"),
    (("--prompt", "1", "--prompt", "2", "--watch"), "watch must go with one prompt and no out, got 2 prompts and out None"),
    (("--prompt", "1", "--batch_size", "0", "--policy", "ete"), "batch_size must be at least 1, got 0"),
    (("--prompt", "1", "--out", "/dev/full/x.jsonl"), "out must be a file that can be written, got /dev/full/x.jsonl (Not a"),
    (("--prompt", "1", "--out", "/proc/x.jsonl"), "out must be a file that can be written, got /proc/x.jsonl (No such file"),
    (("--prompt", "1", "--out", "x.csv"), "out must be a file that ends in .jsonl, got x.csv"),
    (("--prompt", "1", "--device", "tpu"), "device must be one of cpu"),
    (("--prompt", "1", "--dtype", "int8"), "dtype must be "),
    (("--prompt", "1", "--use_cache", "tripel"), "use_cache must be "),
    (("--prompt", "1", "--model", "checkpoints/nothing"), "model must be a checkpoint folder or a hub id, got 'checkpoints/"),
    (("--prompt", "1", "--model", "tests"), "model must be a folder with config.json and tokenizer_config.json, got 'tests'"),
    (("--prompt", "1", "--policy", "learned", "--head", "tests"), "head must be a folder with head.safetensors, got tests"),
    (("--prompt", ""), "prompt must hold at least one character, got ''"),
    (("--prompt", "1", "--gen_length", "40", "--block_length", "16"), "gen_length must be a multiple of block_length (16), got 40"),
    (("--prompt", "1", "--gen_length", "many"), "gen_length must be int | None, got 'many'"),
    (("--prompt", "1", "--policy", "threshold", "--settings.threshold", "2"), "threshold must lie in (0, 1], got 2"),
    (("--prompt", "1", "--gen_length", "16", "--settings.max_tokens", "8"), "gen_length and max_tokens must agree, got 16 and 8"),
    (("--prompt", "1", "--temperature", "-1"), "temperature must be at least 0, got -1.0"),
    (("--prompt", "1", "--policy", "threshold", "--head", "tests"), "head must be a folder with head.safetensors, got tests"),
    (("--prompt", "1", "--row", "1"), "row must come with prompts, a file of them, got 1 with a prompt"),
    (("--prompt", "1", "--seed", "-1"), "seed must be at least 0, got -1"),
    (("--prompt", "1", "--seed", str(2**64)), "seed must be at most 4294967295, got 18446744073709551616"),
    (("--prompt", "1", "--policy", "nosuch.module:X"), "policy must lie in a module that is there, got nosuch.module"),
    (("--prompt", "1", "--policy", "os:system"), "policy must lie in a module that is there, got os"),
    (("--config", "nothing.yaml"), 'Parser key "config": '),
    ((), "prompt or prompts must be given, got neither"),
]  # fmt: skip


@pytest.mark.parametrize(("arguments", "sentence"), BAD_INPUT, ids=[sentence[:40] for _, sentence in BAD_INPUT])
def test_bad_input_is_told_in_one_sentence(capsys, arguments, sentence):
    assert complaint(capsys, generate_command.generate, *arguments).startswith(f"generate.py: {sentence}")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--prompt", "a<|mdm_mask|>b"), "prompt must not hold the mask token, got '<|mdm_mask|>' in it"),
        (("--prompt", "1 " * 40, "--gen_length", "96"), "prompts must leave 96 of the model's 128 positions (--long cut drops "),
        ((*SUM, "--policy", "factor", "--settings.colour", "1"), "settings of policy factor must be among factor, factor_last, "),
        ((*SUM, "--policy", "imh", "--proposals", "2000"), "canvases of policy imh must be at most 1024 a round, got 2000"),
        ((*SUM, "--policy", "imh", "--chain", "2000"), "draws of policy imh must be at most 1024 a round, got 2000"),
        ((*SUM, "--policy", "ete", "--settings.gamma", "1.5"), "gamma must lie in [0, 1], got 1.5"),
    ],
)  # fmt: skip
def test_what_only_the_model_can_refuse_is_told_the_same_way(capsys, tiny, arguments, sentence):
    printed = complaint(capsys, generate_command.generate, *arguments, "--model", str(tiny))
    assert printed.startswith(f"generate.py: {sentence}")


def test_a_damaged_checkpoint_is_told_the_same_way(capsys, tiny, tmp_path):
    for file in tiny.iterdir():
        (tmp_path / file.name).write_bytes(
            file.read_bytes()[:1000] if file.suffix == ".safetensors" else file.read_bytes()
        )
    assert "model.safetensors" in complaint(capsys, generate_command.generate, *SUM, "--model", str(tmp_path))


def test_bad_input_is_judged_before_torch_is_imported():
    own_model = ("--model", "checkpoints/gsm-12m", "--prompt", "1")  # whose head is found by the weights
    wrong = [("--prompt", "1", "--task", "x"), ("--prompt", "1", "--policy", "x"), ("--prompt", "")]
    wrong += [(*own_model, "--out", "/dev/full/x.jsonl"), (*own_model, "--policy", "threshold", "--samples", "2")]
    for arguments in wrong:
        printed = early_complaint("generate.py", *arguments)
        assert printed.startswith("generate.py: ")
        assert printed.count("\n") == 1


def test_json_on_the_last_line_holds_text_costs_and_settings(capsys, tiny):
    run(generate_command.generate, [*SUM, "--model", str(tiny), "--policy", "factor", "--watch", "--json"])
    legend, *rounds, last = capsys.readouterr().out.splitlines()
    assert legend.startswith("round  canvas: · masked  ∎ end")
    facts = json.loads(last)
    costs = "rounds sequence_forwards token_positions looks drafts drafts_true seconds"
    assert list(facts) == f"text accepted {costs} settings".split()
    assert len(rounds) == facts["rounds"] + 1  # the canvas before the first round, and after every one
    assert rounds[0] == f"   0  {'·' * 24}"
    assert "·" not in rounds[-1]
    assert "[" in rounds[-1]
    assert sum(int(n) for line in rounds[1:] for n in re.findall(r"(\d+) (?:accepted|the best one|after)", line)) == 24
    assert rounds[-1].startswith(f"{facts['rounds']:4d}  ")
    assert facts["settings"]["policy"] == {"name": "factor", "factor": 1.0, "factor_last": False}
    assert facts["settings"]["gen_length"] == 24
    assert facts["settings"]["block_length"] == 24
    assert facts["sequence_forwards"] == facts["rounds"]
    assert facts["accepted"] is False


def test_plain_report_says_what_the_checker_says_and_what_it_cost(capsys, tiny):
    run(
        generate_command.generate, [*SUM, "--model", str(tiny), "--settings", '{"threshold": 0.5, "early_stop": false}']
    )
    *_, verdict, cost = capsys.readouterr().out.splitlines()
    assert verdict == "wrong, says the checker of countdown3"
    assert cost.endswith("s, policy threshold")


def test_lengths_without_a_task_are_64_and_32(capsys, tiny):
    run(generate_command.generate, ["--prompt", "1", "--model", str(tiny), "--policy", "threshold", "--json"])
    settings = json.loads(capsys.readouterr().out)["settings"]
    assert (settings["gen_length"], settings["block_length"], settings["task"]) == (64, 32, None)


def test_same_seed_same_text(capsys, tiny):
    texts = []
    for seed in ("1", "1", "2"):
        run(generate_command.generate, [*SUM, "--model", str(tiny), "--temperature", "1", "--seed", seed, "--json"])
        texts.append(json.loads(capsys.readouterr().out)["text"])
    assert texts[0] == texts[1] != texts[2]


def save(out: Path, rate: float = 0.1, quick: bool = False) -> None:
    """Save nothing.

    Args:
        out: the folder.
        rate: a number.
        quick: a flag.
    """
    (out / "done").touch()
    if rate > 1:
        raise OSError("disk is full,\nsays the system")


def test_resolved_options_are_saved_where_there_is_an_out_folder(tmp_path):
    run(save, ["--out", str(tmp_path / "a"), "--quick"])
    saved = tmp_path / "a" / "save.yaml"
    assert (tmp_path / "a" / "done").exists()
    again = parser_of(save).parse_args(["--config", str(saved)])
    assert (again.rate, again.quick) == (0.1, True)


def test_an_estimate_leaves_the_options_of_a_finished_run_alone(tmp_path):
    estimated = []

    def train(out: Path, rate: float = 0.1, estimate: bool = False) -> None:
        estimated.append(estimate)

    run(train, ["--out", str(tmp_path), "--rate", "0.5"])
    saved = (tmp_path / "train.yaml").read_text()
    run(train, ["--out", str(tmp_path), "--estimate"])
    assert (tmp_path / "train.yaml").read_text() == saved
    run(train, ["--out", str(tmp_path)])
    assert (tmp_path / "train.yaml").read_text() != saved
    assert estimated == [False, True, False]


def test_errors_of_the_system_are_one_sentence_and_a_traceback_on_request(capsys, tmp_path, monkeypatch):
    assert complaint(capsys, save, "--out", str(tmp_path), "--rate", "2") == "save.py: disk is full, says the system"
    monkeypatch.setenv("TRACEBACK", "1")
    with pytest.raises(OSError, match="disk is full"):
        run(save, ["--out", str(tmp_path), "--rate", "2"])


def test_a_flag_needs_no_value():
    assert with_flags(save, ["--quick", "--rate", "1"]) == ["--quick=true", "--rate", "1"]
    assert with_flags(save, ["--quick", "false"]) == ["--quick", "false"]
    assert with_flags(save, ["--rate", "1", "--quick"]) == ["--rate", "1", "--quick=true"]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_screen_redraws_in_place_and_colours_only_what_is_new(monkeypatch):
    from decoding import generate

    monkeypatch.setattr("train.commands.screen.PAUSE", 0.0)

    class Letters:
        def decode(self, ids):
            return "abcd"[ids[0]]

    denoiser = TableDenoiser(torch.tensor([[0.0] * 5, [9.0, 0, 0, 0, 0], [0, 1.0, 0, 0, 0]]), mask_id=4, eos_id=3)
    denoiser.tokenizer = Letters()
    screen = Screen(Terminal(), denoiser)
    result = generate(denoiser, [2], "threshold", gen_length=2, on_step=screen.step)
    screen.show(result.state)
    frames = screen.stream.getvalue().split("\x1b[2F\x1b[J")
    assert [frame.splitlines()[0] for frame in frames] == ["··", "\x1b[32ma\x1b[0m·", "a\x1b[33mb\x1b[0m"]
    assert [frame.splitlines()[1].split("  ")[0] for frame in frames] == ["round 0", "round 1", "round 2"]


def test_screen_underlines_the_drafts_that_came_true_and_counts_them(monkeypatch):
    from decoding import generate

    monkeypatch.setattr("train.commands.screen.PAUSE", 0.0)

    class Letters:
        def decode(self, ids):
            return "abcd"[ids[0]]

    table = torch.eye(5)[[0, 0, 1, 2]] * torch.tensor([[0.0], [9.0], [8.0], [7.0]])
    denoiser = TableDenoiser(table, mask_id=4, eos_id=3)
    denoiser.tokenizer = Letters()
    screen = Screen(Terminal(), denoiser)
    result = generate(denoiser, [2], "verified", rule="sequential", canvases=2, gen_length=3, on_step=screen.step)
    screen.show(result.state)
    frames = screen.stream.getvalue().split("\x1b[2F\x1b[J")
    shown = [frame.splitlines()[0] for frame in frames]
    assert shown == ["···", "\x1b[32ma\x1b[0m\x1b[4m\x1b[32mb\x1b[0m·", "ab\x1b[32mc\x1b[0m"]
    assert frames[1].splitlines()[1].endswith("1 of 1 drafts came true")


def test_wrapping_counts_characters_not_colours():
    assert wrap([Piece("de"), Piece("ab", 1, draft=True)], 3) == ["de", "\x1b[4m\x1b[32mab\x1b[0m"]
    assert wrap([Piece("ab", 1), Piece("c"), Piece("de")], 3) == ["\x1b[32mab\x1b[0mc", "de"]


def test_shipped_files_are_found_in_the_source_tree_and_in_a_wheel(monkeypatch, tmp_path):
    assert shipped("configs") == ROOT / "configs"
    monkeypatch.setattr("train.commands.command_line.DATA", tmp_path)
    assert shipped("configs") == tmp_path / "configs"
