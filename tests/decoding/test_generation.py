"""What a call takes and gives beside sequences: rows, repr, NumPy ids, chats, several answers, a streamer."""

import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers import TextDiffusionStreamer

from decoding import generate
from decoding.policies.remask import RemaskLowest
from decoding.policies.threshold import Threshold
from models.toys.toy import TableDenoiser

CANVAS = {"gen_length": 12, "block_length": 4}


class Alphabet:
    """Five letters."""

    def decode(self, ids, skip_special_tokens=True):
        return "".join("abcde"[i] for i in ids)


class Letters(TableDenoiser):
    """Letters, EOS at id 5, the mask at 6; a chat is read as its contents with a letter for every role."""

    def __init__(self, seed: int = 3) -> None:
        table = torch.randn(40, 7, generator=torch.Generator().manual_seed(seed)) * 2
        super().__init__(table, mask_id=6, eos_id=5)
        self.tokenizer, self.max_length = Alphabet(), 40

    def encode(self, prompts, chat=None):
        texts = [p if isinstance(p, str) else "".join(m["role"][0] + m["content"] for m in p) for p in prompts]
        return [["abcde".index(letter) for letter in text] for text in texts]


@pytest.fixture(scope="module")
def model() -> Letters:
    return Letters()


class Recorder:
    """A streamer that keeps what it is given."""

    def __init__(self) -> None:
        self.put_, self.drafts, self.ended = [], [], 0

    def put(self, value):
        self.put_.append(value.tolist())

    def put_draft(self, draft):
        self.drafts.append((sum(map(len, self.put_[1:])), draft.tolist()))

    def end(self):
        self.ended += 1


def test_a_row_is_what_the_result_says_of_it(model):
    result = generate(model, ["ab", "cde"], "threshold", **CANVAS)
    apart = {
        name: torch.tensor([10 * one, 10 * one + 1]) for one, name in enumerate(("looks", "drafts", "drafts_true"), 1)
    }
    result = replace(result, state=replace(result.state, **apart))
    for index in (0, 1, -1):
        row = result.row(index)
        canvas = result.canvas[index].tolist()
        end = canvas.index(5) if 5 in canvas else 11
        assert row.text == result.text[index]
        assert row.ids == tuple(canvas[: end + 1])
        assert row.new_tokens == end + 1
        for name in ("rounds", "sequence_forwards", "token_positions", "explored", "looks", "drafts", "drafts_true"):
            assert getattr(row, name) == int(getattr(result, name)[index])
    with pytest.raises(IndexError):
        result.row(2)


def test_repr_shows_text_and_counts_in_one_line(model):
    shown = repr(generate(model, ["ab"] * 6, "sequential", **CANVAS))
    row = generate(model, "ab", "sequential", **CANVAS).row(0)
    assert shown.startswith(f"Generation(text=[{row.text!r}, ")
    assert f"rounds=[{row.rounds}, {row.rounds}, {row.rounds}, {row.rounds}, ...]" in shown
    assert "\n" not in shown
    assert "tensor" not in shown


def test_repr_without_a_tokenizer_shows_ids():
    denoiser = TableDenoiser(torch.zeros(20, 7), mask_id=6, eos_id=5)
    assert repr(generate(denoiser, [0], "threshold", **CANVAS)).startswith("Generation(ids=[(0, 0, ")


def test_numpy_ids_are_read_like_tensors(model):
    ids = torch.tensor([[0, 1, 2], [3, 4, 0]])
    expected = generate(model, ids, "threshold", **CANVAS).sequences
    for prompts in (ids.numpy(), ids.numpy().astype(np.uint8), list(ids.numpy()), [list(row) for row in ids.numpy()]):
        assert torch.equal(generate(model, prompts, "threshold", **CANVAS).sequences, expected)
    with pytest.raises(ValueError, match=r"prompts must be whole-number ids \[P\] or \[B, P\], got torch.float64"):
        generate(model, np.zeros((1, 2)), "threshold", **CANVAS)


def test_chats_are_one_prompt_each(model):
    chat = [{"role": "a", "content": "bc"}, {"role": "d", "content": "e"}]
    expected = generate(model, "abcde", "threshold", **CANVAS).sequences
    assert torch.equal(generate(model, chat, "threshold", **CANVAS).sequences, expected)
    assert torch.equal(generate(model, [chat, chat], "threshold", **CANVAS).sequences, expected.repeat(2, 1))


def test_several_answers_to_a_prompt_are_neighbours_and_differ(model):
    how = {"temperature": 1.0, "generator": torch.Generator().manual_seed(0), **CANVAS}
    result = generate(model, ["ab", "cde"], "threshold", num_return_sequences=3, **how)
    assert [row[:3] for row in result.sequences.tolist()] == [[0, 0, 1]] * 3 + [[2, 3, 4]] * 3
    assert len(set(result.text[:3])) == 3
    for count in (0, -1, True):
        with pytest.raises(ValueError, match="num_return_sequences must be a whole number of at least 1, got"):
            generate(model, "ab", "threshold", num_return_sequences=count, **CANVAS)
    with pytest.raises(ValueError, match=r"num_return_sequences must be 1 at temperature 0, .* the same, got 3"):
        generate(model, "ab", "threshold", num_return_sequences=3, **CANVAS)
    assert len(generate(model, "ab", "random", num_return_sequences=2, **CANVAS).sequences) == 2  # its order is drawn


@pytest.mark.parametrize("seed", range(8))
def test_a_streamer_gets_the_prompt_then_the_answer_in_order(seed):
    model, recorder = Letters(seed), Recorder()
    result = generate(model, "ab", Threshold(0.5), streamer=recorder, **CANVAS)
    prompt, *pieces = recorder.put_
    answer = [token for piece in pieces for token in piece]
    assert prompt == [0, 1]
    assert answer == [token for token in result.row(0).ids if token != 5]
    assert recorder.ended == 1
    assert len(recorder.drafts) == result.nfe
    for sent, draft in recorder.drafts:
        assert model.mask_id not in draft
        assert 5 not in draft
        assert sent + len(draft) <= 12


def test_a_token_is_put_as_soon_as_everything_before_it_is_committed():
    recorder = Recorder()
    row = generate(Letters(0), "ab", "left-to-right", streamer=recorder, early_stop=False, **CANVAS).row(0)
    assert recorder.put_[1:] == [[token] for token in row.ids if token != 5]


def test_a_rule_that_takes_commits_back_is_streamed_at_its_end(model):
    recorder = Recorder()
    result = generate(model, "ab", RemaskLowest(0.3, 0.9, count=1), streamer=recorder, **CANVAS)
    assert len(recorder.put_) == 2
    assert recorder.put_[1] == [token for token in result.row(0).ids if token != 5]


def test_what_is_no_streamer_is_refused(model):
    for wrong in (print, "a"):
        with pytest.raises(ValueError, match="streamer must have put and end, got "):
            generate(model, "ab", "threshold", streamer=wrong, **CANVAS)


def test_a_diffusion_streamer_of_transformers_shows_drafts_and_ends_with_the_text(model, capsys):
    row = generate(model, "ab", Threshold(0.5), streamer=TextDiffusionStreamer(model.tokenizer), **CANVAS).row(0)
    printed = capsys.readouterr().out
    assert "\x1b[33m" in printed  # drafts are yellow, and taken away from the screen
    assert "".join(re.sub(r"\x1b7.*?\x1b8\x1b\[J", "", printed, flags=re.S).split()) == f"ab{row.text}"


def test_a_streamer_without_drafts_and_a_hook_beside_it(model):
    class Plain:
        def __init__(self):
            self.text = []

        def put(self, value):
            self.text += value.tolist()

        def end(self):
            self.text.append("end")

    plain, seen = Plain(), []
    result = generate(
        model, "ab", "threshold", streamer=plain, on_step=lambda s, r: seen.append(s), history=True, **CANVAS
    )
    assert plain.text[-1] == "end"
    assert len(seen) == result.nfe == len(result.history) - 1


def test_a_streamer_takes_one_row(model):
    with pytest.raises(ValueError, match="streamer must come with one prompt and one answer, got 2 rows"):
        generate(model, ["ab", "cd"], "threshold", streamer=Recorder(), **CANVAS)


def test_transformers_own_streamer_prints_the_answer(capsys):
    from transformers import TextDiffusionStreamer

    import models
    from train.commands.command_line import shipped

    base = models.load(shipped("checkpoints/reason-7m"), device="cpu")
    streamer = TextDiffusionStreamer(base.tokenizer, skip_prompt=True)
    result = generate(base, "2,3,4,24", "threshold", gen_length=24, block_length=8, streamer=streamer)
    assert capsys.readouterr().out.rstrip("\n").endswith(result.text[0])
