"""The public call: every spelling of the field, every shape of prompt, and what it refuses."""

from pathlib import Path

import pytest
import torch

import decoding
from decoding import generate
from decoding.calls.request import resolve
from decoding.calls.spellings import ALIASES, REMASKING
from decoding.names import POLICIES
from decoding.policies.quota import Quota, Sequential
from decoding.policies.threshold import Threshold
from models.toys.toy import TableDenoiser

CANVAS = {"gen_length": 12, "block_length": 4}


class Alphabet:
    """Five letters."""

    def decode(self, ids, skip_special_tokens):
        return "".join("abcde"[i] for i in ids)


class Letters(TableDenoiser):
    """Letters, EOS at id 5, the mask at 6; every position has its own fixed distribution."""

    def __init__(self) -> None:
        super().__init__(torch.randn(40, 7, generator=torch.Generator().manual_seed(3)) * 2, mask_id=6, eos_id=5)
        self.tokenizer, self.max_length = Alphabet(), 30

    def encode(self, prompts, chat=None):
        return [["abcde".index(letter) for letter in prompt] for prompt in prompts]


@pytest.fixture(scope="module")
def model() -> Letters:
    return Letters()


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


@pytest.mark.parametrize(
    ("given", "policy"),
    [
        ({}, "learned"),
        ({"gamma": 0.4, "threshold": 0.8}, "learned"),
        ({"threshold": 0.8}, "threshold"),
        ({"confidence_threshold": 0.8, "steps": 12}, "threshold"),
        ({"threshold": 0.8, "factor": 1.0}, "factor"),
        ({"threshold": None, "factor": None, "steps": 6}, "quota"),
        ({"eb_threshold": 0.1}, "entropy-bound"),
        ({"remasking": "random"}, "quota"),
        ({"remasking": "random", "steps": 6, "temperature": 1.0}, "quota"),
        ({"alg": "entropy", "steps": 6, "block_length": 12}, "dream-quota"),
        ({"alg": "entropy_threshold", "entropy_threshold": 0.4}, "entropy"),
        ({"remasking_strategy": "low_confidence_dynamic", "denoising_steps": 4}, "threshold"),
        ({"remasking_strategy": "entropy_bounded"}, "entropy-bound"),
    ],
)
def test_settings_of_the_field_name_the_rule(given, policy):
    assert resolve(None, {**CANVAS, **given}).policy == policy


@pytest.mark.parametrize(("value", "meaning"), REMASKING.items())
def test_every_remasking_makes_a_policy(model, value, meaning):
    policy = generate(model, "ab", remasking=value, gen_length=12).policy
    assert type(policy).__name__ == POLICIES[meaning[0]].home.partition(":")[2]
    assert getattr(policy, "order", None) == meaning[1]


def test_steps_are_the_total_and_denoising_steps_are_per_block(model):
    assert generate(model, "ab", steps=6, **CANVAS).policy == Quota(steps=6)
    assert generate(model, "ab", denoising_steps=2, **CANVAS).policy == Quota(steps=6)
    assert generate(model, "ab", "quota", **CANVAS).policy == Quota(steps=12)
    assert generate(model, "ab", "sequential", remasking="topk_margin", **CANVAS).policy == Sequential("margin")
    assert generate(model, "ab", steps=6, early_stop=False, **CANVAS).nfe == 6


def test_the_call_of_fast_dllm_runs_as_it_stands(model):
    prompt = torch.tensor([[0, 1]])
    x, nfe = generate(
        model, prompt, steps=12, gen_length=12, block_length=4, temperature=0.0, remasking="low_confidence", mask_id=6,
        threshold=0.5, factor=None, cfg_scale=0.0, use_cache="none",
    )  # fmt: skip
    ours = generate(model, prompt, Threshold(0.5), **CANVAS)
    assert torch.equal(x, ours.sequences)
    assert nfe == ours.nfe


@pytest.mark.parametrize("spelling", [s for s, ours in ALIASES.items() if ours in ("gen_length", "block_length")])
def test_lengths_go_by_all_their_names(spelling):
    ours = ALIASES[spelling]
    rest = {name: value for name, value in CANVAS.items() if name != ours}
    assert resolve("threshold", {**rest, spelling: CANVAS[ours]}).gen_length == 12
    with pytest.raises(ValueError, match=f"{ours} and {spelling} must agree, got {CANVAS[ours]} and 6"):
        resolve("threshold", {**CANVAS, spelling: 6})


def test_dream_opens_the_whole_canvas():
    assert resolve(None, {"max_new_tokens": 64, "alg": "maskgit_plus"}).block_length == 64


@pytest.mark.parametrize(("gen_length", "block_length"), [(64, 32), (32, 32), (48, 48), (81, 81), (7, 7)])
def test_default_block(gen_length, block_length):
    assert resolve("threshold", {"gen_length": gen_length}).block_length == block_length


@pytest.mark.parametrize(
    ("policy", "given", "message"),
    [
        ("thresold", {}, "policy must be one of sequential, .*, got 'thresold'"),
        (None, {"gen_length": None}, "gen_length must be a whole number of at least 1, got None"),
        (None, {"gen_length": 0}, "gen_length must be a whole number of at least 1, got 0"),
        (None, {"gen_length": True}, "gen_length must be a whole number of at least 1, got True"),
        (None, {"block_length": 5}, r"gen_length must be a multiple of block_length \(5\), got 12"),
        ("threshold", {"threshold": 0}, r"threshold must lie in \(0, 1\], got 0"),
        ("threshold", {"threshold": 1.01}, r"threshold must lie in \(0, 1\], got 1.01"),
        ("threshold", {"threshold": "0.9"}, r"threshold must lie in \(0, 1\], got '0.9'"),
        ("factor", {"factor": 0}, "factor must be above 0, got 0"),
        ("threshold", {"temperature": -0.1}, "temperature must be at least 0, got -0.1"),
        ("threshold", {"top_p": 0.0}, r"top_p must lie in \(0, 1\], got 0.0"),
        ("quota", {"steps": 7}, r"steps must be a multiple of the number of blocks \(3\), got 7"),
        ("quota", {"steps": 6, "denoising_steps": 3}, r"steps must be steps_per_block times .* \(9\), got 6"),
        ("dream-quota", {"steps": 6}, r"block_length must be gen_length \(12\) with policy dream-quota, got 4"),
        ("factor", {"factor": float("nan")}, "factor must be above 0, got nan"),
        ("ete", {"steps": 6}, "steps must be left out with policy ete, got 6"),
        ("threshold", {"entropy_bound": 0.1}, "entropy_bound must be left out with policy threshold, got 0.1"),
        ("threshold", {"remasking": "random"}, "remasking random must go with policy quota, got policy threshold"),
        ("factor", {"remasking": "low_confidence_dynamic"}, "must go with policy threshold, got policy factor"),
        ("quota", {"remasking": "random", "order": "margin"}, "order must be random with remasking random, got 'margin'"),
        ("quota", {"remasking": "best"}, "remasking must be one of low_confidence, .*, got 'best'"),
        (None, {"threshold": 0.5, "alg": "entropy_threshold"}, "entropy_threshold must go with policy entropy, got policy"),
        (None, {"cfg_scale": 1.5}, "cfg_scale must be 0 because .* guidance .*, got 1.5"),
        (None, {"editing_threshold": 0.9}, "editing_threshold must be None because committed tokens .*, got 0.9"),
        (None, {"use_cache": "paged"}, "use_cache must be none, prefix or dual, got 'paged'"),
        (None, {"use_cache": "prefix", "dual_cache": True}, "use_cache must be 'dual' with dual_cache, got 'prefix'"),
        (Threshold(), {"threshold": 0.5}, "settings must be left out with a policy object, got threshold"),
    ],
)  # fmt: skip
def test_contradictions_are_refused_with_name_rule_and_value(policy, given, message):
    with pytest.raises(ValueError, match=message):
        resolve(policy, {**CANVAS, **given})


@pytest.mark.parametrize(
    ("policy", "settings", "message"),
    [
        ("threshold", {"factor": 1.0}, "settings of policy threshold must be among threshold, got factor"),
        ("threshold", {"colour": 1}, "settings of policy threshold must be among threshold, got colour"),
        ("random", {"order": "margin"}, "settings of policy random must be left out, got order"),
        ("learned", {"head": 1}, "settings of policy learned must be among .*, got head"),
        (
            "imh",
            {"temperature": 0.7},
            "temperature must be left out with policy .*, which draws from p.alpha itself, got 0.7",
        ),
        ("threshold", {"use_cache": "prefix"}, "use_cache must be none with a Letters, got 'prefix'"),
        ("threshold", {"tokenizer": 1}, "tokenizer must come with a loaded LLaDA or Dream model, got a Letters"),
        ("threshold", {"mask_id": 5}, "mask_id must be the model's 6, got 5"),
        ("threshold", {"eos_id": 7}, r"eos_id must lie in \[0, 7\), got 7"),
        (
            "threshold",
            {"gen_length": 28, "block_length": 28},
            r"gen_length must be at most the model's 30, got 3 \+ 28",
        ),
        ("threshold", {"attention_mask": torch.tensor([1, 1, 0])}, "attention_mask must pad on the left"),
        ("threshold", {"attention_mask": torch.tensor([1, 1])}, r"must have the shape of the prompts, got \(2,\)"),
        ("threshold", {"attention_mask": torch.tensor([0, 0, 0])}, "every prompt must hold at least one token"),
    ],
)
def test_calls_that_do_not_fit_the_model_are_refused(model, policy, settings, message):
    with pytest.raises(ValueError, match=message):
        generate(model, torch.tensor([0, 1, 2]), policy, **{**CANVAS, **settings})


def test_the_longest_prompt_that_fits_is_taken(model):
    assert generate(model, "abc", "threshold", gen_length=27).sequences.shape == (1, 30)


@pytest.mark.parametrize(
    ("prompts", "message"),
    [
        ([[0], []], "every prompt must hold at least one token"),
        (torch.zeros(0, dtype=torch.long), "every prompt must hold at least one token"),
        (torch.zeros(0, 3, dtype=torch.long), "every prompt must hold at least one token"),
        ([[0, 1], [2, 6]], "prompts must not hold the mask token, got id 6 at column 1 of prompt 1"),
        ([[0, 7]], "prompts must hold ids from 0 to 6, got id 7 at column 1 of prompt 0"),
        ([[0, -1]], "prompts must hold ids from 0 to 6, got id -1"),
        (torch.zeros(2), "prompts must be whole-number ids"),
        (torch.zeros(1, 1, 1, dtype=torch.long), "prompts must be whole-number ids"),
        ([], r"prompts must be ids, a string or a list of either, got \[\]"),
        ([0, "a"], "prompts must be ids, a string or a list of either, got a list with 0"),
        (None, "prompts must be ids, a string or a list of either, got None"),
    ],
)
def test_prompts_that_cannot_be_read_are_refused(model, prompts, message):
    with pytest.raises(ValueError, match=message):
        generate(model, prompts, "threshold", **CANVAS)


def test_what_is_no_model_is_refused():
    with pytest.raises(ValueError, match="model must be a Denoiser, a folder or hub id, or a loaded model, got int"):
        generate(3, "ab", "threshold", **CANVAS)


def test_strings_need_a_model_with_a_tokenizer(model):
    bare = TableDenoiser(torch.zeros(40, 7), mask_id=6)
    with pytest.raises(ValueError, match="prompts must be token ids for a model without a tokenizer, got 'ab'"):
        generate(bare, "ab", "threshold", **CANVAS)
    with pytest.raises(ValueError, match="text needs a model with a tokenizer"):
        _ = generate(bare, [0, 1], "threshold", **CANVAS).text


OWN_POLICY = """
from dataclasses import dataclass

from decoding.policies.threshold import Threshold
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


def test_the_old_name_of_a_setting_is_read(model):
    assert resolve("learned", {**CANVAS, "turns": 1}).settings == {"looks": 1}
