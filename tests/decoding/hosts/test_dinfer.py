"""Policies in dInfer: a stand-in of its block loop in view, and its own code where a checkout of it is at hand (DINFER=FOLDER)."""

from __future__ import annotations

import importlib
import os
import sys
import types
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

import models
from decoding import generate
from decoding.api import make_policy
from decoding.hosts.dinfer import PolicyDecoder

GOLDEN = Path(__file__).parents[2] / "golden" / "llada"
CHECKOUT = os.environ.get("DINFER", "")
SETTINGS = {
    "threshold": {"threshold": 0.02},
    "factor": {"factor": 4.0},
    "risk-sum": {"risk_bound": 2.5},
    "entropy-bound": {"entropy_bound": 5.0},
    "sequential": {},
}
CANVAS = {"gen_length": 24, "block_length": 8}


@pytest.fixture(scope="module")
def golden():
    return models.load(GOLDEN, device="cpu")


@pytest.fixture(scope="module")
def prompt() -> torch.Tensor:
    return torch.randint(0, 240, (1, 10), generator=torch.Generator().manual_seed(3))


@dataclass
class Array:
    """What the host keeps of a canvas."""

    prompt: torch.Tensor
    data: torch.Tensor


def host(denoiser, decoder, prompt, *, gen_length, block_length, early_stop=False):
    """Blocks from left to right, a forward and a question to the decoder until no mask is left; canvas and forwards."""
    x = Array(prompt, torch.nn.functional.pad(prompt, (0, gen_length), value=denoiser.mask_id))
    forwards = 0
    for number, first in enumerate(range(prompt.shape[1], x.data.shape[1], block_length)):
        last = first + block_length
        decoder.block_init(x.data[:, first:last], number)
        while (x.data[:, first:last] == denoiser.mask_id).any():
            decoder.decode(denoiser.logits(x.data)[:, first:last], first, last, x)
            forwards += 1
        if early_stop and (x.data[:, first:last] == decoder.eos_id).any():
            x.data[:, last:] = decoder.eos_id
    return x.data, forwards


def decoder_of(golden, name: str) -> PolicyDecoder:
    return PolicyDecoder(make_policy(name, SETTINGS[name], golden), mask_id=golden.mask_id, eos_id=golden.eos_id)


@pytest.mark.parametrize("name", SETTINGS)
def test_the_block_loop_of_a_host_writes_what_ours_writes(golden, prompt, name):
    decoder = decoder_of(golden, name)
    ours = generate(golden, prompt, name, early_stop=False, **SETTINGS[name], **CANVAS)
    for _ in range(2):  # a decoder serves one canvas after the other
        tokens, forwards = host(golden, decoder, prompt, **CANVAS)
        assert torch.equal(tokens, ours.sequences)
        assert forwards == ours.nfe


def test_prompts_together_are_prompts_apart(golden):
    prompts = torch.randint(0, 240, (3, 10), generator=torch.Generator().manual_seed(5))
    together, _ = host(golden, decoder_of(golden, "threshold"), prompts, **CANVAS)
    apart = [host(golden, decoder_of(golden, "threshold"), one[None], **CANVAS)[0] for one in prompts]
    assert torch.equal(together, torch.cat(apart))


def test_what_the_adapter_cannot_do_is_one_sentence(golden, prompt):
    with pytest.raises(
        ValueError, match="policy must need no more than a host's forward, got BeamETE: several canvases"
    ):
        PolicyDecoder(make_policy("ete", {}, golden), mask_id=golden.mask_id, eos_id=golden.eos_id)
    with pytest.raises(ValueError, match="block_length must divide gen_length 24, got 7"):
        host(golden, decoder_of(golden, "threshold"), prompt, gen_length=24, block_length=7)
    x = Array(prompt, torch.nn.functional.pad(prompt, (0, 8), value=golden.mask_id))
    with pytest.raises(ValueError, match=r"iter_threshold must be left to the policy's own dial, got 0\.9"):
        decoder_of(golden, "threshold").decode(golden.logits(x.data)[:, 10:], 10, 18, x, 0.9)


@pytest.fixture(scope="module")
def dinfer():
    """The host's decoding modules, without the package's own start, which imports servers that need a GPU."""
    if not (Path(CHECKOUT) / "python" / "dinfer" / "decoding").is_dir():
        pytest.skip("no checkout of inclusionAI/dInfer (its folder in DINFER)")
    folder = Path(CHECKOUT) / "python" / "dinfer"
    for name, place in (("dinfer", folder), ("dinfer.decoding", folder / "decoding")):
        sys.modules[name] = types.ModuleType(name)
        sys.modules[name].__path__ = [str(place)]
    yield {
        part: importlib.import_module(f"dinfer.decoding.{part}")
        for part in ("generate_uniform", "parallel_strategy", "utils")
    }
    for name in [one for one in sys.modules if one.partition(".")[0] == "dinfer"]:
        del sys.modules[name]


class Base:
    """What the host asks of a model: ids in, logits out."""

    device = torch.device("cpu")

    def __init__(self, denoiser) -> None:
        self.denoiser = denoiser

    def __call__(self, tokens, **_):
        return types.SimpleNamespace(logits=self.denoiser.logits(tokens))


def theirs(dinfer, golden, decoder, prompt):
    """Tokens and forwards of the host's own engine; it drops EOS from what it returns, so the array is looked at."""
    kept = []
    factory = dinfer["utils"].BlockIteratorFactory()
    watched = types.SimpleNamespace(create=lambda x, length: kept.append(x) or factory.create(x, length))
    engine = dinfer["generate_uniform"].BlockWiseDiffusionLLM(
        Base(golden), decoder, watched, early_stop=False, maximum_unroll=1
    )
    engine.generate(prompt, **CANVAS)
    return kept[0].data, engine.num_forwards


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", SETTINGS)
def test_the_hosts_own_engine_writes_what_ours_writes(dinfer, golden, prompt, name):
    tokens, forwards = theirs(dinfer, golden, decoder_of(golden, name), prompt)
    ours = generate(golden, prompt, name, early_stop=False, **SETTINGS[name], **CANVAS)
    assert torch.equal(tokens, ours.sequences)
    assert forwards == ours.nfe


@pytest.mark.filterwarnings("ignore")
def test_our_threshold_is_the_hosts_own(dinfer, golden, prompt, monkeypatch):
    monkeypatch.setattr(torch._dynamo.config, "disable", True)
    own = dinfer["parallel_strategy"].ThresholdParallelDecoder(0.0, 0.02, mask_id=golden.mask_id, eos_id=golden.eos_id)
    assert torch.equal(
        theirs(dinfer, golden, own, prompt)[0], theirs(dinfer, golden, decoder_of(golden, "threshold"), prompt)[0]
    )
