"""The journal of an evaluation: what its answers depend on, and which of them a later run takes over."""

import pytest
import torch

import models
from models.heads.scoring_head import load_head
from train.commands.command_line import shipped
from train.harness.arguments import judge_arguments
from train.harness.journal import Journal, header_of

HEAD = shipped("checkpoints/universal-head")


def test_equal_requests_have_lines_of_their_own(tmp_path):
    journal = Journal(str(tmp_path), 0, {"a": 1})
    first, second = journal.key("k", ("x",)), journal.key("k", ("x",))
    assert first != second
    journal.add(second, {"text": "b"})
    again = Journal(str(tmp_path), 0, {"a": 1})
    assert again.known[second]["text"] == "b"
    again.start()
    assert again.key("k", ("x",)) == first


def test_answers_of_other_weights_are_not_taken_over(tmp_path, tiny):
    denoiser = models.load(tiny, device="cpu")
    denoiser.put_on(load_head(HEAD, denoiser))
    evaluation = judge_arguments({"pretrained": str(tiny), "head": str(HEAD), "save_dir": str(tmp_path)})

    def open_() -> Journal:
        return Journal(str(tmp_path), 0, header_of(evaluation, denoiser))

    open_()
    open_().add("k", {"text": "b"})
    assert open_().known["k"]["text"] == "b"
    denoiser.renew_fingerprint("other")
    with pytest.raises(ValueError, match=r"^save_dir must hold .* with another weights: '.*' there, 'other' now"):
        open_()
    denoiser = models.load(tiny, device="cpu")
    denoiser.put_on(load_head(HEAD, denoiser))
    with torch.no_grad():
        next(denoiser.head.parameters()).add_(0.5)
    with pytest.raises(ValueError, match=r"^save_dir must hold answers .* with another head_weights: "):
        open_()
    denoiser.put_on(None)
    with pytest.raises(ValueError, match=r"with another head_weights: '.*' there, None now"):
        open_()
