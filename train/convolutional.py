"""Fit a small denoiser without attention: ``python -m train.convolutional --config configs/train/convolutional.yaml``."""

from __future__ import annotations

import logging
import shutil
import time
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor
from transformers import AutoTokenizer

from decoding.provenance import environment, write_json
from models.checkpoints.manifest import TOKENIZER_FILES, saving
from models.checkpoints.sums import byte_sum, check_finite, spelled
from models.devices import find_device
from models.toys.convolutional import ConvolutionalDenoiser, ConvolutionShape
from train.base.diffusion_loss import denoising_loss, mask_canvas, mask_rates
from train.base.rows import Batch, TaskRows, load_task
from train.base.schedule import learning_rate_factor, progress
from train.pretrain import find_mask_id

logger = logging.getLogger(__name__)

LOG_EVERY = 100


def convolutional(
    *,
    task: str,
    out: Path,
    tokenizer: Path,
    rows: int = 4096,
    width: int = 88,
    passes: int = 2,
    max_length: int = 128,
    batch_size: int = 64,
    lr: float = 0.003,
    max_minutes: float | None = None,
    max_steps: int | None = None,
    seed: int = 0,
    cache: Path = Path(".cache/rows"),
    device: str | None = None,
) -> Path:
    """Fit a stack of dilated convolutions on one task by the loss of the base models; short enough to be run again.

    Args:
        task: whose rows it learns.
        out: folder of weights, config, tokenizer files and `fit.json`.
        tokenizer: folder with the tokenizer files.
        rows: training rows that are generated.
        width, passes, max_length: of the stack.
        batch_size: rows of a step.
        lr: peak learning rate.
        max_minutes: training minutes, data preparation not counted.
        max_steps: steps.
        seed: of rows, weights and masks; with `max_steps` it settles the weights.
        cache: folder of generated rows.
        device: where to run; by default the GPU if there is one.

    Returns:
        The folder.

    Raises:
        ValueError: for a setting out of range.
    """
    torch.manual_seed(seed)
    target = find_device(device)
    words = AutoTokenizer.from_pretrained(tokenizer)
    spec = TaskRows(share=1.0, rows=rows)
    data = load_task(task, spec, tokenizer, split="train", seed=seed, cache=cache, device=target)
    shape = ConvolutionShape(len(words), width=width, passes=passes, max_length=max_length)
    model = ConvolutionalDenoiser(shape, mask_id=find_mask_id(words), eos_id=words.eos_token_id).to(target)
    optimiser = torch.optim.AdamW(model.parameters(), lr=lr, betas=(0.9, 0.95), weight_decay=0.01)
    generator = torch.Generator(target)
    began, step, losses = time.monotonic(), 0, []
    while (done := progress(step=step, minutes=minutes(began), max_steps=max_steps, max_minutes=max_minutes)) < 1:
        generator.manual_seed(seed * 1_000_003 + step)
        optimiser.param_groups[0]["lr"] = lr * learning_rate_factor(done, warmup=0.05, decay=0.5)
        loss = loss_of(model, data.draw(batch_size, generator), generator)
        optimiser.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        step += 1
        if step % LOG_EVERY == 0:
            losses.append(float(loss))
            logger.info("step %d, %.1f minutes: loss %.3f", step, minutes(began), losses[-1])
    write(model, out, tokenizer)
    fitted = {
        "task": task,
        "steps": step,
        "minutes": round(minutes(began), 2),
        "batch_size": batch_size,
        "loss": losses,
    }
    write_json(out / "fit.json", {**environment(device=target, seed=seed), **fitted})
    return out


def minutes(began: float) -> float:
    """Since then."""
    return (time.monotonic() - began) / 60


def loss_of(model: ConvolutionalDenoiser, batch: Batch, generator: torch.Generator) -> Tensor:
    """Mask the canvas of a batch and take the denoising loss, as `train.base.base_model` does."""
    canvas = batch.tokens[:, -batch.canvas :]
    rates = mask_rates(
        torch.rand(len(canvas), generator=generator, device=canvas.device), floor=1 / batch.canvas, schedule=1.0
    )
    coins = torch.rand(canvas.shape, generator=generator, device=canvas.device)
    noisy, masked = mask_canvas(canvas, rates, coins, mask_id=model.mask_id)
    tokens = torch.cat([batch.tokens[:, : -batch.canvas], noisy], dim=1)
    columns = torch.arange(tokens.shape[1], device=tokens.device)
    context = None if batch.padding is None else columns >= batch.padding[:, None]
    with torch.autocast(tokens.device.type, dtype=torch.bfloat16, enabled=tokens.device.type == "cuda"):
        logits = model.unembed(model.hidden_states(tokens, context)[:, -batch.canvas :])
    return denoising_loss(logits, canvas, masked, rates)


def write(model: ConvolutionalDenoiser, out: Path, tokenizer: Path) -> None:
    """Weights in bfloat16, the config and the tokenizer's files: all or nothing."""
    weights = {name: tensor.detach().to("cpu", torch.bfloat16) for name, tensor in model.state_dict().items()}
    check_finite(weights, f"the model to save in {out}")
    sums = spelled({name: byte_sum(tensor) for name, tensor in weights.items()})
    with saving(out, "base", {"tensors": sums, "shards": ["model.safetensors"]}) as aside:
        for name in TOKENIZER_FILES:
            if (tokenizer / name).is_file():
                shutil.copyfile(tokenizer / name, aside / name)
        write_json(aside / "config.json", model.config())
        (aside / "model.safetensors").write_bytes(save(weights, metadata={"format": "pt"}))


def main() -> None:
    """Read the command line and run."""
    from train.commands.command_line import run

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s: %(message)s")
    run(convolutional)


if __name__ == "__main__":
    main()
