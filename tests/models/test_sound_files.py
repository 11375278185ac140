"""What a save leaves and what a damaged one may not do: defaults, leftovers of another save, numbers too large, adapters."""

from __future__ import annotations

import json
import shutil

import pytest
import torch

import models
from decoding import generate
from decoding.calls.request import resolve
from decoding.features import NAMES
from models.checkpoints.config_numbers import CheckpointError, is_finite, positive
from models.checkpoints.families import LLADA
from models.checkpoints.json_files import require_sound, sealed
from models.checkpoints.manifest import TOKENIZER_FILES
from models.checkpoints.special_ids import special_ids
from models.checkpoints.tokenizer import load_tokenizer
from models.heads.config import HeadConfig
from models.heads.defaults import Defaults, read_defaults, write_defaults
from models.heads.scoring_head import ScoringHead, save_head
from train.base.export import export
from train.commands.command_line import shipped

PROMPT = "3,5,7,56"
REASON = shipped("checkpoints/reason-7m")


@pytest.fixture(scope="module")
def reason():
    return models.load(REASON, device="cpu")


def head_of(denoiser, **values) -> ScoringHead:
    torch.manual_seed(0)
    head = ScoringHead(HeadConfig("linear", NAMES, width=8), denoiser).eval()
    for name, value in values.items():
        head.get_buffer(name).fill_(value)
    return head


def test_defaults_are_part_of_the_save(reason, tmp_path):
    head = head_of(reason)
    head.defaults = Defaults("confidence", 0.3, 0)
    save_head(head, tmp_path)
    assert "defaults.json" in json.loads((tmp_path / "checksums.json").read_text())["files"]
    write_defaults(Defaults("sum", 0.2, 0), tmp_path)
    assert models.load(REASON, head=tmp_path, device="cpu").head.defaults == Defaults("sum", 0.2, 0)
    (tmp_path / "defaults.json").write_text((tmp_path / "defaults.json").read_text().replace("0.2", "0.9"))
    with pytest.raises(CheckpointError, match=r"defaults\.json must be as it was saved"):
        models.load(REASON, head=tmp_path, device="cpu")
    head.defaults = None
    save_head(head, tmp_path)
    assert read_defaults(tmp_path) is None


def test_defaults_beside_no_head_are_written_too(tmp_path):
    write_defaults(Defaults("sum", 0.2, 0), tmp_path / "a")
    assert [file.name for file in (tmp_path / "a").iterdir()] == ["defaults.json"]


@pytest.mark.parametrize("values", [{"spread": 1e-38}, {"mean": 3e38}, {"mean": -3e38, "spread": 1e-30}])
def test_a_head_whose_figures_overflow_is_refused(reason, values):
    head = head_of(reason, **values)
    torch.nn.init.normal_(head.readout.weight)
    reason.put_on(head)
    try:
        for policy, settings in (("learned", {"rule": "sum"}), ("verified", {"rule": "learned", "risk_rule": "sum"})):
            with pytest.raises(
                ValueError, match="figures of the head must be finite, got NaN or infinity after forward 1"
            ):
                generate(reason, PROMPT, policy, gen_length=8, **settings)
    finally:
        reason.put_on(None)


def test_an_export_leaves_nothing_of_the_base_before(reason, tmp_path):
    stale = ("chat_template.jinja", "vocab.json", "merges.txt", "added_tokens.json")
    for name in stale:
        (tmp_path / name).write_text("{}")
    export(reason.model, tmp_path, tokenizer=REASON, mask_id=1, eos_id=0)
    assert not [name for name in stale if (tmp_path / name).exists()]
    assert not models.load(tmp_path, device="cpu").is_chat


def test_a_chat_template_goes_with_its_tokenizer(reason, tmp_path):
    source = shutil.copytree(REASON, tmp_path / "source")
    (source / "chat_template.jinja").write_text("{{ messages[0]['content'] }}")
    export(reason.model, tmp_path / "made", tokenizer=source, mask_id=1, eos_id=0)
    assert models.load(tmp_path / "made", device="cpu").is_chat
    (tmp_path / "made" / "chat_template.jinja").write_text("{{ messages[0]['role'] }}")
    with pytest.raises(CheckpointError, match=r"chat_template\.jinja must be as it was saved"):
        models.load(tmp_path / "made", device="cpu")
    assert "chat_template.jinja" in TOKENIZER_FILES


@pytest.mark.parametrize("value", [10**400, -(10**400), float("inf"), float("nan"), True, "1", None])
def test_what_no_float_holds_is_not_finite(value):
    assert not is_finite(value)
    assert is_finite(2**53)


@pytest.mark.parametrize("key", ["rope_theta", "rms_norm_eps"])
def test_a_number_too_large_for_a_float_is_refused_by_name(tmp_path, key):
    folder = shutil.copytree(REASON, tmp_path / "base")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {key: 10**400}))
    with pytest.raises(CheckpointError, match=f"^{key} of config.json must be a finite number above 0, got 1000"):
        models.load(folder, device="cpu")


def test_a_norm_s_epsilon_above_1_is_refused_by_name():
    with pytest.raises(CheckpointError, match=r"^rms_norm_eps of config.json must be at most 1, got 1.5"):
        positive({"rms_norm_eps": 1.5}, "rms_norm_eps", most=1.0)


@pytest.mark.parametrize("where", ["config.json", "generation_config.json"])
def test_an_end_that_is_the_mask_is_refused(tmp_path, where):
    folder = shutil.copytree(REASON, tmp_path / "base")
    (folder / "checksums.json").unlink()
    config = json.loads((folder / where).read_text())
    (folder / where).write_text(json.dumps(config | {"eos_token_id": [0, 1]}))
    with pytest.raises(CheckpointError, match=r"^eos_token_id must be another than the mask id 1, got it$"):
        models.load(folder, device="cpu")


def test_a_tokenizer_that_knows_less_than_half_of_the_ids_is_warned_of():
    config = json.loads((shipped("checkpoints/gsm-12m") / "config.json").read_text())
    with pytest.warns(UserWarning, match="ends at id 767, and the model has 4096: it may be that of another base"):
        special_ids(LLADA, config, load_tokenizer(REASON), {})


def test_the_tokenizers_end_ends_an_answer_beside_the_configs(tmp_path):
    folder = shutil.copytree(REASON, tmp_path / "base")
    (folder / "checksums.json").unlink()
    for name in ("config.json", "generation_config.json"):
        config = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps(config | {"eos_token_id": 5}))
    assert models.load(folder, device="cpu").end_ids == (5, 0)


def test_content_with_a_sum_is_refused_once_it_differs():
    content = sealed({"a": 1, "b": [0.5, None]})
    require_sound(content)
    require_sound({"a": 2})
    with pytest.raises(ValueError, match="damaged, or changed by hand"):
        require_sound(content | {"a": 2})


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"temperature": float("inf")}, "temperature must be at least 0 and finite, got inf"),
        ({"temperature": 10**400}, "temperature must be at least 0 and finite, got 1000"),
        ({"early_stop": "false"}, "early_stop must be true or false, got 'false'"),
        ({"history": "no"}, "history must be true or false, got 'no'"),
        ({"logits_eos_inf": "false"}, "logits_eos_inf must be true or false, got 'false'"),
        ({"confidence_eos_eot_inf": 1}, "confidence_eos_eot_inf must be true or false, got 1"),
    ],
)
def test_switches_and_numbers_of_a_call_are_what_they_say(given, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        resolve("threshold", {"gen_length": 8, **given})


def test_none_of_a_call_is_not_given():
    none = {"temperature": None, "top_p": None, "early_stop": None}
    assert resolve("threshold", {"gen_length": 8, **none}).options == {}


def test_an_end_of_a_call_that_is_the_mask_is_refused(reason):
    with pytest.raises(ValueError, match=r"^eos_id must be another than the mask id 1, got it$"):
        generate(reason, PROMPT, "threshold", gen_length=8, eos_id=1)


def test_ends_may_be_a_tensor(reason):
    made = generate(reason, PROMPT, "threshold", gen_length=8, eos_id=torch.tensor([0, 7]))
    assert made.end_ids == (0, 7, 5)
