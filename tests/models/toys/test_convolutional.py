"""The denoiser without attention: padding and other rows change nothing, both sides are read, and it comes back from disk."""

import pytest
import torch

from models.checkpoints.families import CheckpointError
from models.toys.convolutional import ConvolutionalDenoiser, ConvolutionShape, load_convolutional
from train.commands.command_line import shipped
from train.convolutional import convolutional


def small() -> ConvolutionalDenoiser:
    torch.manual_seed(0)
    model = ConvolutionalDenoiser(ConvolutionShape(9, width=8, dilations=(1, 2), passes=2), mask_id=8)
    for layer in model.layers:
        torch.nn.init.normal_(layer.out.weight)
    return model.requires_grad_(False).eval()


def test_left_padding_changes_nothing():
    model, tokens = small(), torch.tensor([[3, 8, 5, 1]])
    padded = torch.cat([torch.tensor([[7, 2]]), tokens], 1)
    found = model.logits(padded, torch.arange(6).unsqueeze(0) >= 2)[:, 2:]
    torch.testing.assert_close(found, model.logits(tokens))
    assert not torch.allclose(model.logits(padded)[:, 2:], found)


@pytest.mark.parametrize("changed", [2, 4])
def test_both_sides_are_read(changed):
    model, tokens = small(), torch.tensor([[1, 2, 3, 8, 4, 5]])
    other = tokens.index_fill(1, torch.tensor([changed]), 6)
    assert not torch.allclose(model.logits(other)[:, 3], model.logits(tokens)[:, 3])


def test_rows_asked_for_are_packed_and_positions_counted():
    model, tokens = small(), torch.tensor([[1, 8, 3], [8, 2, 8]])
    found = model(tokens, rows=tokens == 8, attention_mask=torch.tensor([[0, 1, 1], [1, 1, 1]]).bool())
    assert (tuple(found.logits.shape), found.positions.tolist()) == ((3, 9), [2, 3])


def test_a_short_fit_repeats_itself_and_comes_back(tmp_path):
    folders = [
        convolutional(
            task="multiplication", out=tmp_path / name, tokenizer=shipped("checkpoints/reason-7m"), rows=64, width=8,
            passes=1, batch_size=8, max_steps=3, cache=tmp_path / "rows", device="cpu",
        )
        for name in ("one", "two")
    ]  # fmt: skip
    first, second = (load_convolutional(folder, device="cpu") for folder in folders)
    assert first.fingerprint() == second.fingerprint() != ""
    assert (first.mask_id, first.eos_id) == (1, 0)
    (folders[0] / "config.json").write_text('{"model_type": "llada"}')
    with pytest.raises(CheckpointError, match="model_type must be"):
        load_convolutional(folders[0], device="cpu")
