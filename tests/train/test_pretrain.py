"""A base-model run in miniature: what it saves, how it resumes, what attention sees."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import re
import signal
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from train import pretrain as command
from train.base.base_model import BaseModelFit
from train.base.corpus import Rows
from train.base.export import export, load_weights
from train.base.rows import TaskData, TaskRows, load_rows
from train.base.settings import Fit, ModelShape
from train.commands.command_line import parser_of
from train.commands.interruption import Interrupted

CPU = torch.device("cpu")
MASK, EOS = 2, 1
SHAPE = ModelShape(layers=2, width=32, heads=2, mlp_width=48, max_positions=64)
FIT = Fit(tokens_per_step=64, warmup=0.0, decay=0.5, seed=3)
TASKS = {"countdown3": TaskRows(1.0, 8)}
CONFIG = Path(__file__).parents[2] / "configs" / "train" / "base.yaml"

pytestmark = pytest.mark.filterwarnings("ignore:.*LeafSpec")  # inside Lightning


def tiny_data() -> list[TaskData]:
    """Copy three digits; the second task has prompts of two lengths."""
    draw = np.random.default_rng(0).integers(3, 13, (64, 3)).astype(np.uint16)
    tokens = np.concatenate([draw, draw, np.full((64, 1), EOS, np.uint16)], axis=1)
    lengths = np.full(64, 3)
    mixed = np.where(np.arange(64) % 2, 2, 3)
    shorter = tokens.copy()
    shorter[mixed == 2, 0] = EOS
    return [
        load_rows("copy", Rows(tokens, lengths), TaskRows(0.6, 64), canvas=4, device=CPU),
        load_rows("mixed", Rows(shorter, mixed), TaskRows(0.4, 64, pad_to=8), canvas=4, device=CPU),
    ]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    vocabulary = {"<pad>": 0, "<eos>": EOS, "<|mdm_mask|>": MASK} | {str(i): i + 3 for i in range(10)}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="<pad>"))
    backend.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    words = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<eos>", mask_token="<|mdm_mask|>")
    words.save_pretrained(tmp_path / "words")
    monkeypatch.setattr(command, "load_data", lambda *args, **kwargs: (tiny_data(), tiny_data()))

    def start(out: str, **settings: Any) -> Path:
        how = {"tasks": TASKS, "shape": SHAPE, "fit": FIT, "max_steps": 6, "validate_minutes": 10.0}
        return command.pretrain(out=tmp_path / out, tokenizer=tmp_path / "words", **how | settings)

    return start


def fresh() -> BaseModelFit:
    torch.manual_seed(0)
    model = LlamaForCausalLM(SHAPE.config(vocabulary=13, eos_id=EOS))
    return BaseModelFit(model, tiny_data(), FIT, mask_id=MASK, max_steps=6)


def test_three_steps_and_three_more_after_a_stop_equal_six(run: Any) -> None:
    whole = run("whole")
    part = run("part", stop_after_steps=3)
    at_three = load_file(part / "model.safetensors")
    run("part")
    end, resumed = load_file(whole / "model.safetensors"), load_file(part / "model.safetensors")
    assert all(torch.equal(end[key], resumed[key]) for key in end)
    assert any(not torch.equal(end[key], at_three[key]) for key in end)
    states = [torch.load(out / "resume.ckpt", weights_only=False) for out in (whole, part)]
    assert states[0]["base_model_fit"]["steps"] == states[1]["base_model_fit"]["steps"] == 6
    assert all(torch.equal(a, states[1]["state_dict"][key]) for key, a in states[0]["state_dict"].items())
    for a, b in zip(*(state["base_model_fit"]["averages"] for state in states), strict=True):
        assert torch.equal(a, b)


def test_the_folder_is_a_llada_checkpoint_with_its_settings_and_log(run: Any) -> None:
    out = run("out")
    config = json.loads((out / "config.json").read_text())
    assert (config["model_type"], config["n_layers"], config["vocab_size"]) == ("llada", 2, 64)
    assert (config["mask_token_id"], config["eos_token_id"]) == (MASK, EOS)
    weights = load_file(out / "model.safetensors")
    assert weights["model.transformer.blocks.1.ff_out.weight"].shape == (32, 48)
    assert {w.dtype for w in weights.values()} == {torch.bfloat16}
    assert (out / "tokenizer.json").is_file()
    assert (out / "generation_config.json").is_file()
    assert "mixed/right_at_0.5" in (out / "log" / "version_0" / "metrics.csv").read_text()
    assert not list(out.glob(".*.aside"))


def test_init_starts_from_the_weights_of_a_folder(run: Any, tmp_path: Path) -> None:
    first = run("first")
    second = run("second", init=first, max_steps=1)
    a, b = (load_file(out / "model.safetensors") for out in (first, second))
    key = "model.transformer.wte.weight"
    assert 0 < (a[key].float() - b[key].float()).abs().max() < 0.02
    with pytest.raises(ValueError, match="init"):
        run("third", init=tmp_path / "nowhere")


def test_steps_learn_to_copy(run: Any) -> None:
    log = (run("long", max_steps=100) / "log" / "version_0" / "metrics.csv").read_text().splitlines()
    column = log[0].split(",").index("copy/right_at_0.5")
    right = [line.split(",")[column] for line in log[1:] if line.split(",")[column]]
    assert float(right[-1]) > 0.8


def test_attention_is_bidirectional_and_blind_to_padding() -> None:
    module = fresh().eval()
    tokens = torch.tensor([[3, 4, 5, 2, 2, 2, 2]])
    plain = module.hidden_states(tokens, None)
    padded = module.hidden_states(torch.cat([torch.full((1, 2), 7), tokens], 1), torch.tensor([2]))
    torch.testing.assert_close(padded[:, 2:], plain, atol=1e-5, rtol=1e-5)
    changed = tokens.clone()
    changed[0, -1] = 9
    assert (module.hidden_states(changed, None)[0, 0] - plain[0, 0]).abs().max() > 1e-4
    two_d = torch.tensor([[0, 0] + [1] * 7])
    native = module.model.model(
        input_ids=torch.cat([torch.full((1, 2), 7), tokens], 1),
        attention_mask=two_d,
        position_ids=(two_d.cumsum(-1) - 1).clamp(min=0),
    ).last_hidden_state
    torch.testing.assert_close(native[:, 2:], plain, atol=1e-5, rtol=1e-5)


def test_the_loss_masks_the_canvas_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    module, seen = fresh(), []
    forward = module.hidden_states

    def spy(tokens: torch.Tensor, padding: torch.Tensor | None) -> torch.Tensor:
        seen.append(tokens)
        return forward(tokens, padding)

    monkeypatch.setattr(module, "hidden_states", spy)
    batch = tiny_data()[0].draw(1024, torch.Generator().manual_seed(0))
    module.loss(batch, torch.Generator().manual_seed(0))
    assert torch.equal(seen[0][:, :3], batch.tokens[:, :3])
    share = (seen[0][:, 3:] == MASK).float().mean(1)
    assert 0.2 < share[:256].mean() < 0.3
    assert share[-256:].mean() > 0.8


def test_a_batch_depends_on_seed_and_step_alone() -> None:
    module, data = fresh(), tiny_data()[0]
    first = data.draw(8, module.generator_at(5)).tokens
    module.generator_at(6)
    assert torch.equal(first, data.draw(8, module.generator_at(5)).tokens)
    assert not torch.equal(first, data.draw(8, module.generator_at(6)).tokens)


def test_every_weight_has_one_optimiser() -> None:
    module = fresh()
    muon, adam = module.configure_optimizers()
    counts = [sum(p.numel() for group in o.param_groups for p in group["params"]) for o in (muon, adam)]
    assert sum(counts) == sum(p.numel() for p in module.parameters())
    assert counts[0] == 2 * (4 * 32 * 32 + 3 * 32 * 48)


def test_export_and_load_are_inverse(tmp_path: Path) -> None:
    model, other = fresh().model.bfloat16().float(), fresh().model
    export(model, tmp_path, tokenizer=tmp_path, mask_id=MASK, eos_id=EOS)
    load_weights(other, tmp_path)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_named_run_parses() -> None:
    parser = parser_of(command.pretrain)
    settings = parser.instantiate_classes(parser.parse_args(["--config", str(CONFIG), "--fit.seed", "4"]))
    assert settings.tasks["sudoku"].symmetric
    assert isinstance(settings.tasks["multiplication"], TaskRows)
    assert settings.fit.seed == 4
    assert settings.shape == ModelShape()


def test_weights_are_kept_at_the_points_asked_for(run: Any) -> None:
    whole = run("points", points=(1.0, 0.5))
    early, late = (load_file(whole / f"point-{number}" / "model.safetensors") for number in (1, 2))
    end, at_three = (load_file(out / "model.safetensors") for out in (whole, run("three", stop_after_steps=3)))
    assert all(torch.equal(late[key], end[key]) for key in end)
    assert all(torch.equal(early[key], at_three[key]) for key in end)
    assert not (whole / "point-3").exists()


def test_a_resumed_run_keeps_only_the_points_ahead(run: Any) -> None:
    part = run("part", points=(0.5, 1.0), stop_after_steps=4)
    first = (part / "point-1" / "model.safetensors").stat().st_mtime_ns
    run("part", points=(0.5, 1.0))
    assert (part / "point-1" / "model.safetensors").stat().st_mtime_ns == first
    assert (part / "point-2").is_dir()


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"max_minutes": math.nan}, "max_minutes must be a finite number above 0, got nan"),
        ({"validate_minutes": math.nan}, "validate_minutes must be a finite number above 0, got nan"),
        ({"validate_minutes": -1.0}, "validate_minutes must be a finite number above 0, got -1.0"),
        ({"stop_after_minutes": math.inf}, "stop_after_minutes must be a finite number above 0, got inf"),
        ({"stop_after_steps": -3}, "stop_after_steps must be at least 1, got -3"),
        ({"max_shard_size": 0}, "max_shard_size must be at least 1, got 0"),
        ({"dev_rows": 0}, "dev_rows must be at least 1, got 0"),
        ({"max_steps": 0}, "max_steps must be at least 1, got 0"),
        ({"points": (0.0,)}, "points must lie in (0, 1], got (0.0,)"),
        ({"tasks": {}}, "tasks must name at least one task, got none"),
    ],
)
def test_what_no_run_can_be_made_with_is_refused_before_rows_are_made(run, tmp_path, monkeypatch, settings, sentence):
    monkeypatch.setattr(command, "load_data", lambda *_, **__: pytest.fail("rows were made"))
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        run("bad", **settings)
    assert not (tmp_path / "bad").exists()


def test_a_run_that_is_over_is_left_as_it_is(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    out = run("over")
    before = {file: file.stat().st_mtime_ns for file in out.rglob("*")}
    monkeypatch.setattr(command, "load_data", lambda *_, **__: pytest.fail("rows were made"))
    assert run("over") == out
    assert {file: file.stat().st_mtime_ns for file in out.rglob("*")} == before


def test_a_run_goes_on_with_its_own_settings_alone(run: Any, tmp_path: Path) -> None:
    (tmp_path / "rows").write_text("{}")
    tasks = {"countdown3": TaskRows(1.0, 8, files=(str(tmp_path / "rows"),))}
    out = run("bound", tasks=tasks, stop_after_steps=1)
    before = (out / "resume.ckpt").read_bytes()

    def refused(sentence: str, **settings: Any) -> None:
        sentence = sentence.replace(" OUT,", f" to go on with the run in {out},") + ": choose another --out"
        with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
            run("bound", **{"tasks": tasks} | settings)

    refused("tasks must be ['countdown3'] OUT, got ['lists']", tasks={"lists": TaskRows(1.0, 8)})
    refused("tasks.countdown3.share must be 1.0 OUT, got 2.0", tasks={"countdown3": TaskRows(2.0, 8)})
    refused("shape.layers must be 2 OUT, got 3", shape=dataclasses.replace(SHAPE, layers=3))
    refused("fit.seed must be 3 OUT, got 7", fit=dataclasses.replace(FIT, seed=7))
    refused("fit.muon_lr must be 0.02 OUT, got 0.5", fit=dataclasses.replace(FIT, muon_lr=0.5))
    refused("init must be None OUT, got 'first'", init=Path("first"))
    refused("points must be [] OUT, got [0.5]", points=(0.5,))
    refused("max_steps must be 6 OUT, got 7", max_steps=7)
    refused("max_minutes must be None OUT, got 2.0", max_minutes=2.0)
    (tmp_path / "rows").write_text("[]")
    with pytest.raises(
        ValueError, match=r"^content of tasks.countdown3.files must be \['\w+'\] to go on with the run in "
    ):
        run("bound", tasks=tasks)
    (tmp_path / "rows").write_text("{}")
    words = tmp_path / "words" / "tokenizer.json"
    words.write_text(words.read_text() + " ")
    with pytest.raises(ValueError, match=r"^content of tokenizer must be '\w+' to go on with the run in "):
        run("bound", tasks=tasks)
    assert (out / "resume.ckpt").read_bytes() == before
    torch.save({"base_model_fit": {"steps": 1, "minutes": 0.1}}, out / "resume.ckpt")
    with pytest.raises(
        ValueError, match=r"resume.ckpt must hold the settings of its run, got none: choose another --out$"
    ):
        run("bound", tasks=tasks)


@pytest.mark.parametrize("damage", [b"", b"no checkpoint", b"PK\x03\x04broken", None, "cut", "foreign"])
def test_a_broken_checkpoint_is_told_in_one_sentence(run: Any, tmp_path: Path, damage: Any) -> None:
    out = tmp_path / "broken"
    out.mkdir()
    file = out / "resume.ckpt"
    torch.save({"state_dict": {}} if damage == "foreign" else {"base_model_fit": {"steps": "x"}}, file)
    if isinstance(damage, bytes):
        file.write_bytes(damage)
    elif damage == "cut":
        file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"resume.ckpt must be a whole checkpoint of this command, got "):
        run("broken")


def test_a_flipped_bit_of_a_resume_file_is_refused(run: Any) -> None:
    file = run("flipped", stop_after_steps=3) / "resume.ckpt"
    data = bytearray(file.read_bytes())
    with zipfile.ZipFile(file) as packed:
        largest = max(packed.infolist(), key=lambda one: one.file_size)
    data[largest.header_offset + largest.file_size // 2 + 200] ^= 4
    file.write_bytes(bytes(data))
    with pytest.raises(ValueError, match=r"resume.ckpt must be a whole checkpoint of this command, got other bytes"):
        run("flipped")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_during_a_run_keeps_the_step_and_the_run_goes_on_to_the_same_end(
    run: Any, monkeypatch, number
) -> None:
    whole = run("whole")
    step = BaseModelFit.training_step

    def stopped(module: BaseModelFit, batch: Any, index: int) -> Any:
        if module.steps_done == 2:
            os.kill(os.getpid(), number)
        return step(module, batch, index)

    monkeypatch.setattr(BaseModelFit, "training_step", stopped)
    before = signal.getsignal(number)
    with pytest.raises(Interrupted) as ended:
        run("part")
    assert ended.value.exit_code == 128 + number
    assert signal.getsignal(number) == before
    part = whole.parent / "part"
    assert torch.load(part / "resume.ckpt", weights_only=False)["base_model_fit"]["steps"] == 3
    monkeypatch.setattr(BaseModelFit, "training_step", step)
    run("part")
    end, resumed = load_file(whole / "model.safetensors"), load_file(part / "model.safetensors")
    assert all(torch.equal(end[key], resumed[key]) for key in end)


def test_a_step_whose_gradient_is_no_number_is_not_taken(run: Any, monkeypatch) -> None:
    loss, steps, seen = BaseModelFit.loss, [], []

    def poisoned(module: BaseModelFit, batch: Any, generator: torch.Generator) -> torch.Tensor:
        steps.append(module.steps_done)
        seen.append(module)
        return loss(module, batch, generator) * (float("nan") if module.steps_done == 3 else 1.0)

    monkeypatch.setattr(BaseModelFit, "loss", poisoned)
    out = run("poisoned")
    assert 3 in steps
    assert seen[-1].skipped == 1
    assert all(bool(w.isfinite().all()) for w in load_file(out / "model.safetensors").values())


def test_an_export_over_another_leaves_no_weights_of_it(tmp_path: Path) -> None:
    first, second = fresh().model, LlamaForCausalLM(SHAPE.config(vocabulary=13, eos_id=EOS))
    export(first, tmp_path, tokenizer=tmp_path, mask_id=MASK, eos_id=EOS, max_shard_size=4000)
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 1
    export(second, tmp_path, tokenizer=tmp_path, mask_id=MASK, eos_id=EOS)
    assert [file.name for file in tmp_path.glob("*.safetensors*")] == ["model.safetensors"]
    export(first, tmp_path, tokenizer=tmp_path, mask_id=MASK, eos_id=EOS, max_shard_size=4000)
    assert not (tmp_path / "model.safetensors").exists()
    load_weights(second, tmp_path)
    rounded = [p.bfloat16().float() for p in first.parameters()]
    assert all(torch.equal(a, b) for a, b in zip(rounded, second.parameters(), strict=True))
