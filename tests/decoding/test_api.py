"""The public call: every spelling of the field, every shape of prompt, and what it refuses."""

from pathlib import Path

import pytest
import torch

import decoding
import models
from decoding import generate
from decoding.names import POLICIES
from decoding.policies.threshold import Threshold
from decoding.prompts import read_prompts
from tests.decoding.letters import CANVAS, Letters


def test_unpacks_as_sequences_and_calls(model):
    x, nfe = generate(model, torch.tensor([0, 1]), "threshold", **CANVAS)
    assert x.shape == (1, 14)
    assert x[0, :2].tolist() == [0, 1]
    assert 1 <= nfe <= 12
    assert (x != model.mask_id).all()


def test_result_holds_text_up_to_the_first_eos_and_counts_per_row(model):
    result = generate(model, ["ab", "cde"], "sequential", early_stop=False, **CANVAS)
    rows = result.canvas.tolist()
    assert result.canvas.shape == (2, 12)
    for text, row in zip(result.text, rows, strict=True):
        end = row.index(5) if 5 in row else 12
        assert text == "".join("abcde"[i] for i in row[:end])
    assert result.rounds.tolist() == result.sequence_forwards.tolist() == [12, 12]
    assert result.token_positions.tolist() == [12 * 14, 12 * 15]
    assert result.nfe == 12
    assert result.seconds > 0
    assert not result.state.masked.any()


def test_an_early_stop_ends_the_rounds_of_its_row_and_fills_with_eos(model):
    model_row = generate(model, "ab", "left-to-right", **CANVAS)
    row = model_row.canvas[0].tolist()
    first = row.index(5)
    assert set(row[first:]) == {5}
    assert model_row.rounds.tolist() == [first + 1]
    assert generate(model, "ab", "left-to-right", early_stop=False, **CANVAS).rounds.tolist() == [12]
    assert generate(model, "ab", "left-to-right", eos_early_stop=False, **CANVAS).rounds.tolist() == [12]


@pytest.mark.parametrize(
    "prompts",
    [
        "abc",
        ["abc"],
        [0, 1, 2],
        [[0, 1, 2]],
        torch.tensor([0, 1, 2]),
        torch.tensor([[0, 1, 2]]),
        torch.tensor([[0, 1, 2]], dtype=torch.int32),
    ],
)
def test_every_shape_of_one_prompt_gives_the_same_row(model, prompts):
    wanted = generate(model, [[0, 1, 2]], "factor", **CANVAS).sequences
    assert torch.equal(generate(model, prompts, "factor", **CANVAS).sequences, wanted)


@pytest.mark.parametrize("policy", ["threshold", "ete", "quota", "lopa"])
def test_a_batch_of_unequal_prompts_equals_its_rows(model, policy):
    texts = ["a", "abcd", "ec"]
    batch = generate(model, texts, policy, **CANVAS)
    for row, text in enumerate(texts):
        single = generate(model, text, policy, **CANVAS)
        assert torch.equal(batch.sequences[row, 4 - len(text) :], single.sequences[0])
        for count in ("rounds", "sequence_forwards", "token_positions", "explored"):
            assert getattr(batch, count)[row] == getattr(single, count)[0]
    assert batch.nfe == max(batch.rounds.tolist())


def test_a_padded_tensor_with_a_mask_equals_the_list(model):
    tokens = torch.tensor([[6, 6, 0], [3, 4, 2]])  # mask ids on padding are no prompt
    mask = torch.tensor([[0, 0, 1], [1, 1, 1]])
    by_tensor = generate(model, tokens, "threshold", attention_mask=mask, **CANVAS)
    by_list = generate(model, ["a", "dec"], "threshold", **CANVAS)
    assert torch.equal(by_tensor.canvas, by_list.canvas)
    assert torch.equal(by_tensor.token_positions, by_list.token_positions)


def test_a_mask_goes_where_the_ids_are(model, monkeypatch):
    seen = []
    monkeypatch.setattr(
        "decoding.prompts._check", lambda batch, denoiser: seen.append(batch)
    )  # meta ids have no values
    ids = torch.zeros(1, 3, dtype=torch.long, device="meta")
    for mask in ([[0, 1, 1]], torch.tensor([[0, 1, 1]])):
        assert read_prompts(ids, mask, model, copies=2).attention_mask.device == ids.device
    assert [batch.attention_mask.device for batch in seen] == [ids.device] * 2


def test_a_mask_of_ones_changes_nothing(model):
    tokens = torch.tensor([[3, 4, 2]])
    one = generate(model, tokens, "threshold", attention_mask=torch.ones_like(tokens), **CANVAS)
    assert torch.equal(one.sequences, generate(model, tokens, "threshold", **CANVAS).sequences)


def test_hook_sees_each_round_before_its_commit_and_history_keeps_it(model):
    seen = []
    result = generate(model, "ab", "threshold", history=True, on_step=lambda s, r: seen.append((s, r)), **CANVAS)
    assert [s.round.item() for s, _ in seen] == list(range(1, result.nfe + 1))
    assert len(result.history) == result.nfe + 1
    assert all(kept is state for kept, (state, _) in zip(result.history, seen, strict=False))
    assert result.history[-1] is result.state
    masks = [state.masked.sum().item() for state in result.history]
    assert masks[0] == 12
    assert masks == sorted(masks, reverse=True)
    assert masks[-1] == 0
    assert generate(model, "ab", "threshold", **CANVAS).history == ()
    assert len(generate(model, "ab", "threshold", output_history=True, **CANVAS).history) == len(result.history)


def test_a_policy_object_and_its_name_with_settings_agree(model):
    by_object = generate(model, "ab", Threshold(0.5), **CANVAS)
    by_name = generate(model, "ab", "threshold", threshold=0.5, **CANVAS)
    assert torch.equal(by_object.sequences, by_name.sequences)
    assert by_object.policy == by_name.policy == Threshold(0.5)


def test_same_seed_same_tokens(model):
    def draw(seed: int) -> torch.Tensor:
        source = torch.Generator().manual_seed(seed)
        return generate(model, "ab", "random", generator=source, temperature=1.0, **CANVAS).sequences

    assert torch.equal(draw(1), draw(1))
    assert not torch.equal(draw(1), draw(2))


def test_eos_can_be_kept_out_or_made_unconfident(model):
    assert 5 in generate(model, "ab", "threshold", **CANVAS).canvas
    assert 5 not in generate(model, "ab", "threshold", logits_eos_inf=True, **CANVAS).canvas
    shy = generate(model, "ab", "sequential", confidence_eos_eot_inf=True, early_stop=False, **CANVAS)
    assert (shy.state.committed_confidence[shy.sequences == 5] == 0).all()


def test_another_eos_ends_the_answer(model):
    row = generate(
        model, "ab", "left-to-right", eos_id=int(generate(model, "ab", "threshold", **CANVAS).canvas[0, 0]), **CANVAS
    )
    assert row.text == [""]
    assert row.rounds.tolist() == [1]


@pytest.mark.parametrize(
    ("spelled", "mode"),
    [({"use_cache": "dual"}, "dual"), ({"use_cache": True}, "prefix"), ({"dual_cache": True}, "dual")],
)
def test_a_cache_is_put_on_for_one_decode(model, spelled, mode, monkeypatch):
    requests = []
    monkeypatch.setattr(Letters, "with_cache", lambda self, mode: requests.append(mode) or self, raising=False)
    generate(model, "ab", "threshold", **spelled, **CANVAS)
    generate(model, "ab", "threshold", use_cache="none", **CANVAS)
    assert requests == [mode]


def test_a_folder_is_loaded_once_and_equals_the_loaded_model():
    folder = Path(__file__).parents[1] / "golden" / "llada"
    prompt = torch.tensor([[3, 1, 4, 1, 5]])
    by_folder = generate(folder, prompt, "threshold", gen_length=8)
    assert decoding.calls.fitting._load(str(folder)) is decoding.calls.fitting._load(str(folder))
    native = decoding.calls.fitting._load(str(folder)).model
    by_model = generate(native, prompt, "threshold", gen_length=8, mask_id=250, eos_id=251)
    assert torch.equal(by_folder.sequences, by_model.sequences)
    with pytest.raises(ValueError, match="mask_id must be given"):
        generate(native, prompt, "threshold", gen_length=8)


def test_a_folder_is_known_by_its_place_and_its_files(tmp_path, monkeypatch):
    loaded, fitting = [], decoding.calls.fitting
    monkeypatch.setattr(fitting, "_loaded", {})
    monkeypatch.setattr(models, "load", lambda name: loaded.append(name) or Letters())
    for parent in ("a", "b"):
        (tmp_path / parent / "model").mkdir(parents=True)
        (tmp_path / parent / "model" / "model.safetensors").write_bytes(b"1")
    monkeypatch.chdir(tmp_path / "a")
    first = fitting._load("model")
    assert fitting._load(str(tmp_path / "b" / ".." / "a" / "model")) is first
    monkeypatch.chdir(tmp_path / "b")
    second = fitting._load("model")
    assert second is not first
    (tmp_path / "b" / "model" / "model.safetensors").write_bytes(b"12")
    assert fitting._load("model") is not second
    assert fitting._load("../a/model") is first
    assert (len(fitting._loaded), loaded) == (2, ["model"] * 3)
    hub = fitting._load("owner/name")
    assert fitting._load("owner/name") is hub
    assert list(fitting._loaded) == [str(tmp_path / "a" / "model"), "owner/name"]


def test_a_policy_with_a_head_needs_a_model_with_one(model):
    with pytest.raises(ValueError, match=r"policy learned must have a model loaded with head=FOLDER"):
        generate(model, "ab", **CANVAS)


def test_every_name_leads_to_a_class_that_the_package_exports():
    for policy in POLICIES.values():
        kind = getattr(decoding, policy.home.partition(":")[2])
        assert issubclass(kind, decoding.Policy)
        assert set(policy.fixed) <= set(kind.__dataclass_fields__)
        assert policy.head == ("head" in kind.__dataclass_fields__)
        assert not policy.dial or policy.dial in kind.__dataclass_fields__


OWN_POLICY = """
from dataclasses import dataclass

from decoding.policies.threshold import Threshold
from decoding.prompts import read_prompts
from decoding.policy import Policy


@dataclass(frozen=True)
class Mine(Policy):
    threshold: float = 0.5

    def propose(self, state, reading):
        return Threshold(self.threshold).propose(state, reading)
"""


def test_a_policy_of_ones_own_is_named_by_its_place(model, tmp_path, monkeypatch):
    (tmp_path / "policies_of_mine.py").write_text(OWN_POLICY)
    monkeypatch.syspath_prepend(tmp_path)
    mine = generate(model, "ab", "policies_of_mine:Mine", threshold=0.9, **CANVAS)
    theirs = generate(model, "ab", "threshold", threshold=0.9, **CANVAS)
    assert torch.equal(mine.sequences, theirs.sequences)
    for name in ("policies_of_mine:Yours", "nowhere:Mine", "policies_of_mine:dataclass", "policies_of_mine"):
        with pytest.raises(ValueError, match=r"^policy must be .*, got "):
            generate(model, "ab", name, **CANVAS)
