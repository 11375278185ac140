"""Every id that ends an answer ends it alike: in the text, in the early stop and in what is counted."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

import models
from decoding import generate
from decoding.commit import end_after_eos
from decoding.comparison.statistics import new_tokens
from decoding.state import Reason, start
from models.checkpoints.families import CheckpointError
from models.toys.toy import TableDenoiser

GOLDEN = Path(__file__).parents[1] / "golden" / "llada"
WORDS = ["a", "b", "c", "<eos>", "<turn>", "<mask>"]
EOS, TURN, MASK = 3, 4, 5


class Letters:
    """A tokenizer of six words."""

    def decode(self, ids, skip_special_tokens=False):
        return "".join(WORDS[i] for i in ids)


def says(ids, **ends) -> TableDenoiser:
    """A model that wants these tokens behind a prompt of two, the left ones surest."""
    table = torch.zeros(2 + len(ids), 6)
    for place, token in enumerate(ids):
        table[2 + place, token] = 20.0 - place
    made = TableDenoiser(table, mask_id=MASK, eos_id=EOS)
    made.tokenizer = Letters()
    for name, value in ends.items():
        setattr(made, name, value)
    return made


CASES = {
    "end of turn": ({"end_of_turn_id": TURN}, {}),
    "a list in the config": ({"also_ends": (TURN,)}, {}),
    "given": ({}, {"eos_id": [EOS, TURN]}),
    "given alone": ({"eos_id": None}, {"eos_id": TURN}),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("early_stop", [True, False])
def test_an_answer_ends_at_the_first_of_them(case, early_stop):
    ends, given = CASES[case]
    made = generate(
        says([0, 1, TURN, 2, EOS, 2], **ends),
        [[0, 1]],
        "sequential",
        gen_length=6,
        block_length=6,
        early_stop=early_stop,
        **given,
    )
    assert made.text == ["ab"]
    assert new_tokens(made.state, made.end_ids).tolist() == [3]
    fill = TURN if case == "given alone" else EOS
    assert made.canvas[0].tolist() == ([0, 1, TURN, fill, fill, fill] if early_stop else [0, 1, TURN, 2, EOS, 2])
    assert made.rounds.tolist() == ([3] if early_stop else [6])
    assert (made.state.reason == int(Reason.END)).sum() == (3 if early_stop else 0)


def test_an_end_of_turn_that_comes_after_eos_changes_nothing():
    made = generate(says([0, EOS, TURN, 1], end_of_turn_id=TURN), [[0, 1]], "sequential", gen_length=4)
    assert made.text == ["a"]
    assert made.canvas[0].tolist() == [0, EOS, EOS, EOS]


def test_a_turn_that_ends_behind_a_mask_does_not_end_the_answer_yet():
    state = start(torch.zeros(1, 4, dtype=torch.long), gen_length=4, block_length=4, mask_id=MASK, eos_id=(EOS, TURN))
    tokens = torch.tensor([[0, MASK, TURN, MASK]])
    state = end_after_eos(type(state)(**{**vars(state), "tokens": tokens, "masked": tokens == MASK}))
    assert state.tokens.tolist() == [[0, MASK, TURN, MASK]]
    assert state.layout.end_ids == (EOS, TURN)


def test_llada_s_options_know_all_of_them():
    wants = [TURN, 0, 1, EOS]
    model = says(wants, end_of_turn_id=TURN)
    last = generate(model, [[0, 1]], "sequential", gen_length=4, early_stop=False, confidence_eos_eot_inf=True)
    assert last.state.committed_round[0, 2:].tolist() == [3, 1, 2, 4]
    never = generate(model, [[0, 1]], "sequential", gen_length=4, early_stop=False, logits_eos_inf=True)
    assert TURN in never.canvas[0].tolist()
    assert EOS not in never.canvas[0].tolist()


@pytest.fixture
def folder(tmp_path):
    for name in ("config.json", "generation_config.json", "model.safetensors"):
        shutil.copyfile(GOLDEN / name, tmp_path / name)
    return tmp_path


def change(file: Path, **settings) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | settings))


def test_a_checkpoint_s_lists_are_read(folder):
    change(folder / "config.json", eos_token_id=[251, 7])
    change(folder / "generation_config.json", eos_token_id=[8, 251])
    denoiser = models.load(folder, device="cpu")
    assert (denoiser.eos_id, denoiser.end_ids) == (251, (251, 7, 8))
    assert denoiser.with_cache("prefix").end_ids == denoiser.end_ids


@pytest.mark.parametrize("wrong", [256, [251, -1], ["a"], True])
def test_an_id_that_is_none_is_refused(folder, wrong):
    change(folder / "config.json", eos_token_id=wrong)
    with pytest.raises(CheckpointError, match=r"eos_token_id must hold ids of the vocabulary of 256, got"):
        models.load(folder, device="cpu")


@pytest.mark.parametrize("wrong", [[1, 6], [-1], "x"])
def test_an_id_given_that_is_none_is_refused(wrong):
    with pytest.raises(ValueError, match=r"eos_id must lie in \[0, 6\), got"):
        generate(says([0, 1]), [[0, 1]], "sequential", gen_length=2, eos_id=wrong)
