"""The grid that every decoding invariant runs over: a new policy joins by its name in `decoding.names`."""

from __future__ import annotations

from dataclasses import replace
from importlib import import_module
from pathlib import Path

import pytest
import torch
from torch import nn

import models
from decoding.loop import decode
from decoding.names import POLICIES
from decoding.policies.quota import DreamQuota
from decoding.policy import Policy
from decoding.reading import Reading
from decoding.sampling import Sampling
from decoding.state import Reason, start
from models.denoiser import Denoiser
from models.toys.toy import GroupDenoiser, TableDenoiser
from tests.decoding.letters import Letters
from tests.decoding.policy_settings import BLOCK_LENGTH, GEN_LENGTH, row_of

ROOT = Path(__file__).parents[2]


def members(name: str) -> dict[str, Policy]:
    """The policy of that name with each of its settings."""
    module, _, kind = POLICIES[name].home.partition(":")
    make = getattr(import_module(module), kind)
    return {
        f"{name}-{label}": make(**POLICIES[name].fixed, **settings) for label, settings in row_of(name).toys.items()
    }


GRID = {member: policy for name in POLICIES for member, policy in members(name).items()}


class ContextDenoiser(TableDenoiser):
    """A table whose lines are changed by the tokens revealed on either side."""

    def everywhere(self, tokens):
        nothing = tokens.new_full((len(tokens), 1), self.mask_id)
        left = torch.cat([nothing, tokens[:, :-1]], 1)
        right = torch.cat([tokens[:, 1:], nothing], 1)
        voice = random_table(3, self.vocab_size, 2.5).index_fill(0, torch.tensor(self.mask_id), 0.0)
        return super().everywhere(tokens) + voice[left] + voice.flip(1)[right]

    def attended(self, tokens, blocks, *, attention_mask=None, rows=None):
        prediction = super().attended(tokens, blocks, attention_mask=attention_mask, rows=rows)
        place = torch.arange(tokens.shape[1])
        near = ((place - place.unsqueeze(-1)).abs() == 1).float()
        return replace(prediction, attention=0.5 * near * (prediction.attention > 0))


def random_table(seed: int, lines: int, spread: float, vocabulary: int = 6) -> torch.Tensor:
    return torch.randn(lines, vocabulary, generator=torch.Generator().manual_seed(seed)) * spread


DENOISERS = {
    "flat": TableDenoiser(random_table(0, 40, 1.0), mask_id=5, eos_id=4),
    "sharp": TableDenoiser(random_table(1, 40, 4.0), mask_id=5, eos_id=4),
    "context": ContextDenoiser(random_table(2, 40, 1.5), mask_id=5, eos_id=4),
    "groups": GroupDenoiser(GEN_LENGTH // BLOCK_LENGTH, BLOCK_LENGTH),
}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    for name, grid in (("any_policy", GRID), ("any_denoiser", DENOISERS)):
        if name in metafunc.fixturenames:
            metafunc.parametrize(name, grid.values(), ids=grid.keys())


class Counting(Denoiser):
    """Forwards to another denoiser and counts."""

    def __init__(self, inner: Denoiser) -> None:
        super().__init__()
        self.inner, self.calls, self.canvases, self.positions = inner, 0, 0, 0
        self.mask_id, self.eos_id, self.vocab_size, self.max_length = inner.mask_id, inner.eos_id, inner.vocab_size, 99

    def forward(self, tokens, **kwargs):
        return self.count(tokens, self.inner(tokens, **kwargs))

    def count(self, tokens, prediction):
        self.calls, self.canvases = self.calls + 1, self.canvases + len(tokens)
        self.positions += int(prediction.positions.sum())
        return prediction

    def shadowed(self, tokens, shadows, **kwargs):
        return self.count(tokens, self.inner.shadowed(tokens, shadows, **kwargs))

    def attended(self, tokens, blocks, **kwargs):
        return self.count(tokens, self.inner.attended(tokens, blocks, **kwargs))


@pytest.fixture
def denoisers():
    return DENOISERS


@pytest.fixture
def counting():
    return Counting


@pytest.fixture
def prompts() -> torch.Tensor:
    """Three prompts of four tokens below the mask id of every denoiser in the grid."""
    return torch.tensor([[0, 1, 1, 0], [1, 0, 1, 1], [0, 0, 0, 1]])


@pytest.fixture
def begin():
    """The first state of a decode of `policy`."""

    def state_of(denoiser, policy, prompts, *, gen_length=GEN_LENGTH, block_length=None, early_stop=True):
        block_length = block_length or (gen_length if isinstance(policy, DreamQuota) else BLOCK_LENGTH)
        state = start(
            nn.functional.pad(prompts, (0, gen_length)),
            gen_length=gen_length,
            block_length=block_length,
            mask_id=denoiser.mask_id,
            eos_id=denoiser.eos_id if early_stop else None,
            step_budget=policy.step_budget,
            initial_blocks=policy.initial_blocks,
        )
        memory = torch.zeros(len(prompts), policy.needs.memory, state.tokens.shape[1])
        return replace(state, memory=memory)

    return state_of


@pytest.fixture
def sampling_of():
    """The sampling of a policy, the mask token forbidden."""

    def sampling(denoiser, policy, temperature=0.0):
        return Sampling(
            temperature=temperature,
            forbidden=(denoiser.mask_id,),
            noise=policy.needs.noise,
            draws=policy.needs.draws,
            power=policy.needs.power,
        )

    return sampling


@pytest.fixture
def run(begin, sampling_of):
    """Decode and return the final state and the counts."""

    def run_(denoiser, policy, prompts, *, temperature=0.0, seed=0, attention_mask=None, on_step=None, **canvas):
        return decode(
            denoiser,
            begin(denoiser, policy, prompts, **canvas),
            policy,
            attention_mask=attention_mask,
            sampling=sampling_of(denoiser, policy, temperature),
            generator=torch.Generator().manual_seed(seed),
            on_step=on_step,
        )

    return run_


@pytest.fixture
def reading_of():
    """A reading of equal rows (or, from a list of lists, of rows with K branches) with exactly these confidences."""

    def reading(confidence, *, entropy=None, second=None, noise=None, batch=1) -> Reading:
        c = torch.tensor([confidence] * batch)
        blank = Reading.empty(tuple(c.shape), c.device)
        top = torch.stack([c, torch.zeros_like(c) if second is None else torch.tensor([second])], -1).log()
        return replace(
            blank,
            rows=c > 0,
            token=torch.zeros_like(blank.token),
            confidence=c,
            log_risk=(-c).log1p(),
            entropy=blank.entropy if entropy is None else torch.tensor([entropy]),
            top_log_probs=nn.functional.pad(top, (0, 3), value=-100.0),
            noise=blank.noise if noise is None else torch.tensor([noise]),
        )

    return reading


@pytest.fixture
def canvas():
    """A state without a prompt, nothing committed."""

    def canvas_(gen_length, block_length=None, batch=1, **settings):
        tokens = torch.zeros(batch, gen_length, dtype=torch.long)
        block_length = gen_length if block_length is None else block_length
        return start(tokens, gen_length=gen_length, block_length=block_length, mask_id=5, eos_id=None, **settings)

    return canvas_


@pytest.fixture
def committed(canvas, reading_of):
    """Positions that a policy commits from one reading of one block, and their reasons."""

    def committed_(policy, confidence, **figures) -> dict[int, Reason]:
        reading = reading_of(confidence, **figures)
        proposal = policy.propose(canvas(len(confidence)), reading)
        assert torch.equal(proposal.tokens == 0, proposal.reason > 0)
        return {i: Reason(r) for i, r in enumerate(proposal.reason[0, 0].tolist()) if r}

    return committed_


@pytest.fixture(scope="module")
def model() -> Letters:
    """A toy that writes letters."""
    return Letters()


@pytest.fixture(scope="module", params=["llada", "dream"])
def goldens(request):
    """A golden model by the plain path and by the engine."""
    folder = ROOT / "tests" / "golden" / request.param
    return [models.load(folder, device="cpu", dtype="float64", engine=kind) for kind in ("plain", "graphs")]


@pytest.fixture(scope="module")
def reasons():
    """The shipped model with its head, likewise; 32 columns hold every canvas of their tests, and cost half as much as 64."""
    base, head = ROOT / "checkpoints" / "reason-7m", ROOT / "checkpoints" / "reason-7m-head"
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("decoding.rounds.engine.COLUMNS", 32)
        yield [models.load(base, device="cpu", dtype="float64", head=head, engine=kind) for kind in ("plain", "graphs")]
