"""Sound bases, heads, adapters and files of prompts, and how each is read."""

from __future__ import annotations

import gzip
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

import models
from decoding.api import generate
from decoding.features import NAMES
from models.heads.cascade import Cascade, CascadeConfig
from models.heads.config import HeadConfig
from models.heads.defaults import Defaults
from models.heads.scoring_head import ScoringHead, save_head
from train.commands.answering import prompt_file
from train.commands.command_line import shipped
from train.commands.folders import check_model
from train.tasks import get

SHIPPED = shipped("checkpoints/reason-7m")
GOLDEN = Path(__file__).parents[1] / "golden"
PROMPT, TASK = "1,2,3,6", "countdown3"


def decode(denoiser: Any, **how: Any) -> Any:
    """Text, rounds and confidences of a short decode."""
    made = generate(denoiser, [PROMPT], gen_length=8, block_length=4, **({"policy": "threshold"} | how))
    confidence = made.state.committed_confidence
    assert bool(confidence.isfinite().all())
    return made.text, made.rounds.tolist(), confidence.tolist()


def load_base(folder: Path) -> Any:
    """A base as `generate.py` reads it."""
    check_model(str(folder), PROMPT)
    return decode(models.load(folder, device="cpu"))


def load_ids(folder: Path) -> Any:
    """A base without a tokenizer of this vocabulary."""
    denoiser = models.load(folder, device="cpu")
    made = generate(denoiser, torch.tensor([[3, 5, 7]]), "threshold", gen_length=4)
    return made.sequences.tolist()


def make_base(folder: Path, write_tiny: Callable[..., Path]) -> Path:
    """A sealed base in two shards' worth of an index."""
    return write_tiny(folder, width=16, layers=2)


def make_open_base(folder: Path, sealed: Path) -> Path:
    """The same as another tool would write it: without checksums, in two files with an index."""
    shutil.copytree(sealed, folder)
    (folder / "checksums.json").unlink()
    from safetensors.torch import load_file

    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(weights)
    halves = {"model-00001-of-00002.safetensors": names[::2], "model-00002-of-00002.safetensors": names[1::2]}
    for name, mine in halves.items():
        save_file({one: weights[one] for one in mine}, folder / name, metadata={"format": "pt"})
    where = {one: name for name, mine in halves.items() for one in mine}
    index = {"metadata": {"total_size": 1}, "weight_map": where}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [0], "temperature": 1.0}))
    return folder


def make_head(folder: Path, base: Path, variant: str) -> Path:
    """A head with a cascade and defaults."""
    denoiser = models.load(base, device="cpu", verify=True)
    bound = denoiser.fingerprint()
    torch.manual_seed(0)
    config = HeadConfig(variant, NAMES, rank=2, width=8, base=bound if variant == "lora" else "", fitted_on=bound)
    head = ScoringHead(config, denoiser)
    head.cascade = Cascade(CascadeConfig(1, rank=2, base=bound), denoiser)
    head.defaults = Defaults("confidence", 0.3, 1)
    save_head(head, folder)
    return folder


def make_adapter(folder: Path, base: Path) -> Path:
    """A LoRA adapter as PEFT writes it."""
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(0)
    adapted = get_peft_model(
        models.load(base, device="cpu").model, LoraConfig(r=2, target_modules=["q_proj", "down_proj"])
    )
    adapted.save_pretrained(folder)
    return folder


def make_prompts(folder: Path) -> Path:
    """Prompts of every suffix."""
    folder.mkdir()
    rows = [{"id": n, "input": f"{n},2,3,{n + 5}", "output": f"{n}+2={n + 2},{n + 2}+3={n + 5}"} for n in range(1, 9)]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    plain = "".join(f"{row['input']}||{row['output']}\n" for row in rows)
    (folder / "p.jsonl").write_text(lines)
    (folder / "p.txt").write_text(plain)
    (folder / "p.jsonl.gz").write_bytes(gzip.compress(lines.encode(), mtime=0))
    chats = [{"messages": [{"role": "user", "content": row["input"]}], "id": "a"} for row in rows]
    (folder / "c.jsonl").write_text("".join(json.dumps(row) + "\n" for row in chats))
    graded = [{"question": "What is 2 + 3?", "answer": "2 + 3 = 5\n#### 5"}, {"question": "1 + 1?", "answer": "#### 2"}]
    (folder / "g.jsonl").write_text("".join(json.dumps(row) + "\n" for row in graded))
    return folder


def read_prompts(file: Path, task: str | None) -> Any:
    """Prompts of a file, whose texts are whole."""
    found = list(prompt_file.read_prompts(str(file), None if task is None else get(task)))
    for asked in found:
        json.dumps([asked.id, asked.prompt]).encode()
        assert str(asked.prompt).encode()
    return found
