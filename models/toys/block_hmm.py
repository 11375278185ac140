"""The Block-HMM of arXiv 2602.00286: a Denoiser whose joint distribution, and so every conditional, is exact.

    z_1 ~ uniform, z_{n+1} = z_n with probability `stay`, else another state;
    X^(n) = (P_n, Y_1 .. Y_{B-1}), Y_i | z_n ~ Bernoulli(rho_{z_n}), P_n = xor Y, flipped with probability eta.

Vocabulary {0, 1, mask = 2}; the sequence is the right end of the canvas, blocks x size positions.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from models.toys.toy import WholeCanvas

MASK = 2
TINY = 1e-300


@dataclass(frozen=True)
class BlockHMMConfig:
    """The distribution; the defaults are those of the paper's section 6.1.

    Args:
        blocks: number of blocks.
        size: B, bits of a block, its parity bit included, in [2, 12].
        stay: probability that the state stays, in (0, 1).
        rho: probability of a 1 for each state, in (0, 1).
        eta: probability that the parity bit is wrong, in (0, 1).
    """

    blocks: int = 8
    size: int = 8
    stay: float = 0.9
    rho: tuple[float, ...] = (0.9, 0.1)
    eta: float = 1e-8

    def __post_init__(self) -> None:
        if self.blocks < 1:
            raise ValueError(f"blocks must be at least 1, got {self.blocks}")
        if not 2 <= self.size <= 12:
            raise ValueError(f"size must lie in [2, 12], got {self.size}")
        if len(self.rho) < 2 or not all(0 < rate < 1 for rate in self.rho):
            raise ValueError(f"rho must be at least two probabilities in (0, 1), got {self.rho}")
        for name in ("stay", "eta"):
            if not 0 < getattr(self, name) < 1:
                raise ValueError(f"{name} must lie in (0, 1), got {getattr(self, name)}")

    @property
    def length(self) -> int:
        """T, positions of the sequence."""
        return self.blocks * self.size

    @property
    def transition(self) -> Float[Tensor, "z z"]:
        """A, rows the state before."""
        count = len(self.rho)
        other = (1 - self.stay) / (count - 1)
        return torch.full((count, count), other, dtype=torch.double).fill_diagonal_(self.stay)


class BlockHMM(WholeCanvas):
    """Exact marginals of every position given whatever is revealed, in any order.

    Every block is enumerated (2^B patterns), the states are summed out forwards and backwards, in float64. A revealed
    position that is asked for is predicted from all the others.
    """

    patterns: Tensor  # [2^B, B]
    emission: Tensor  # [z, 2^B], p(pattern | z)
    transition: Tensor  # [z, z]

    def __init__(self, config: BlockHMMConfig | None = None) -> None:
        super().__init__()
        self.config = BlockHMMConfig() if config is None else config
        self.mask_id, self.eos_id, self.vocab_size, self.max_length = MASK, None, 3, 4096
        size, eta = self.config.size, self.config.eta
        index = torch.arange(2**size)
        bits = (index.unsqueeze(-1) >> torch.arange(size - 1, -1, -1)) & 1
        rho = torch.tensor(self.config.rho, dtype=torch.double).unsqueeze(-1)
        ones = bits[:, 1:].sum(-1)
        odd = (bits.sum(-1) % 2).double()
        flip = odd * eta + (1 - odd) * (1 - eta)
        self.patterns = nn.Buffer(bits.double())
        self.emission = nn.Buffer(rho**ones * (1 - rho) ** (size - 1 - ones) * flip)
        self.transition = nn.Buffer(self.config.transition)

    @property
    def device(self) -> torch.device:
        """Where token ids must live."""
        return self.emission.device

    def logits_at(self, tokens: Tensor, rows: Tensor, attention_mask: Tensor | None) -> Tensor:
        """See `WholeCanvas.logits_at`."""
        length = self.config.length
        canvas, wanted = tokens[:, -length:], rows[:, -length:]
        probabilities = self.marginals(canvas)
        if bool((wanted & (canvas != MASK)).any()):
            probabilities = torch.where((canvas == MASK).unsqueeze(-1), probabilities, self.of_the_others(canvas))
        before = tokens.shape[1] - length
        probabilities = nn.functional.pad(probabilities, (0, 1, before, 0))
        return probabilities.clamp(min=TINY).log().float()[rows]

    def marginals(self, canvas: Int[Tensor, "N T"]) -> Float[Tensor, "N T 2"]:
        """p(x_i = v | revealed) for every position; a revealed position is certain of itself."""
        likelihood, fits = self._evidence(canvas)
        joint = (self._context(likelihood) @ self.emission) * fits
        both = torch.stack([joint @ (1 - self.patterns), joint @ self.patterns], -1).flatten(1, 2)
        return both / both.sum(-1, keepdim=True)

    def of_the_others(self, canvas: Int[Tensor, "N T"]) -> Float[Tensor, "N T 2"]:
        """p(x_i = v | all revealed positions but i)."""
        count, length = canvas.shape
        hidden = canvas.unsqueeze(1).repeat(1, length, 1)
        position = torch.arange(length, device=canvas.device)
        hidden[:, position, position] = MASK
        conditionals = torch.unflatten(self.marginals(hidden.flatten(0, 1)), 0, (count, length))
        return conditionals[:, position, position]

    def log_prob(self, canvas: Int[Tensor, "N T"]) -> Float[Tensor, " N"]:
        """log p of the revealed positions, in nats: of the whole sequence where nothing is masked."""
        return self.block_log_probs(canvas).sum(-1)

    def block_log_probs(self, canvas: Int[Tensor, "N T"]) -> Float[Tensor, "N n"]:
        """log p(revealed of block n | revealed of the blocks before)."""
        likelihood, _ = self._evidence(canvas)
        return torch.stack([(belief * one).sum(-1).log() for belief, one in self._filter(likelihood)], -1)

    def beliefs(self, canvas: Int[Tensor, "N T"]) -> Float[Tensor, "N n z"]:
        """p(z of block n | revealed of the blocks before)."""
        likelihood, _ = self._evidence(canvas)
        return torch.stack([belief for belief, _ in self._filter(likelihood)], 1)

    def block_joint(self, canvas: Int[Tensor, "N T"], block: int) -> Float[Tensor, "N p"]:
        """p(pattern of a block | revealed), of all 2^B patterns."""
        likelihood, fits = self._evidence(canvas)
        joint = (self._context(likelihood)[:, block] @ self.emission) * fits[:, block]
        return joint / joint.sum(-1, keepdim=True)

    def sample(self, count: int, generator: torch.Generator | None = None) -> Int[Tensor, "N T"]:
        """Draws from the joint distribution, block by block by exact enumeration: verified decoding."""
        length, size = self.config.length, self.config.size
        canvas = torch.full((count, length), MASK, device=self.device)
        for block in range(self.config.blocks):
            drawn = torch.multinomial(self.block_joint(canvas, block), 1, generator=generator).squeeze(-1)
            canvas[:, block * size : (block + 1) * size] = self.patterns[drawn].long()
        return canvas

    def _evidence(self, canvas: Int[Tensor, "N T"]) -> tuple[Float[Tensor, "N n z"], Float[Tensor, "N n p"]]:
        """p(revealed of each block | z), and 1 for every pattern that fits."""
        revealed = torch.unflatten(canvas, 1, (self.config.blocks, self.config.size))
        misses = (revealed == 1).double() @ (1 - self.patterns).T + (revealed == 0).double() @ self.patterns.T
        fits = (misses == 0).double()
        return fits @ self.emission.T, fits

    def _filter(self, likelihood: Float[Tensor, "N n z"]) -> list[tuple[Tensor, Tensor]]:
        """Belief about each block's state from the blocks before it, beside that block's likelihood."""
        states = self.transition.shape[0]
        belief = torch.full_like(likelihood[:, 0], 1 / states)
        steps = []
        for one in likelihood.unbind(1):
            steps.append((belief, one))
            after = belief * one
            belief = (after / after.sum(-1, keepdim=True)) @ self.transition
        return steps

    def _context(self, likelihood: Float[Tensor, "N n z"]) -> Float[Tensor, "N n z"]:
        """What all other blocks say of each block's state, up to a factor."""
        forwards = torch.stack([belief for belief, _ in self._filter(likelihood)], 1)
        message = torch.ones_like(likelihood[:, 0])
        backwards = []
        for one in reversed(likelihood.unbind(1)):
            backwards.append(message)
            message = (message * one) @ self.transition.T
            message = message / message.sum(-1, keepdim=True)
        return forwards * torch.stack(backwards[::-1], 1)
