"""`generate --chat`: a conversation in the terminal with a model that has a chat template."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from decoding.calls.request import Request
from models.complaints import shown

if TYPE_CHECKING:
    from models.denoiser import Denoiser

NEW = "/new"
OPENING = f"a line is a message, {NEW} starts afresh, ctrl-D ends"


class Conversation:
    """Turns of one user and one model.

    Args:
        denoiser: the model.
        request: policy, lengths and settings.
        seed: of every draw.
        stream: an open text file that answers are written to.
        watch: show the canvas after every round.
        cut: drop the oldest turns where the model has too few positions, in place of refusing.

    Raises:
        ValueError: for a model without a chat template.
    """

    def __init__(
        self, denoiser: Denoiser, request: Request, *, seed: int, stream: Any, watch: bool = False, cut: bool = False
    ) -> None:
        import torch

        from train.commands.screen import Screen

        if not getattr(denoiser, "is_chat", False):
            raise ValueError("chat must come with a model that has a chat template, got one without")
        self.denoiser, self.request, self.cut = denoiser, request, cut
        self.generator = torch.Generator(denoiser.device).manual_seed(seed)
        self.stream, self.screen = stream, Screen(stream, denoiser) if watch else None
        self.messages: list[dict[str, str]] = []

    def hold(self, lines: Iterable[str]) -> None:
        """Answer every line until they end."""
        for line in lines:
            text = line.strip()
            if text == NEW:
                self.messages = []
            elif text:
                self.stream.write(self.reply(text) + "\n\n")
                self.stream.flush()

    def reply(self, text: str) -> str:
        """The model's answer to a message, and what it cost; one that is refused leaves the conversation as it was."""
        from decoding import generate

        asked = [*self.messages, {"role": "user", "content": text}]
        try:
            asked = self._fit(asked)
            result = generate(
                self.denoiser,
                asked,
                self.request.policy,
                gen_length=self.request.gen_length,
                block_length=self.request.block_length,
                generator=self.generator,
                on_step=self.screen.step if self.screen else None,
                **self.request.options,
                **self.request.settings,
            )
        except ValueError as error:
            return f"({error})"
        if self.screen:
            self.screen.show(result.state)
        row = result.row(0)
        self.messages = [*asked, {"role": "assistant", "content": str(row.text).strip()}]
        return f"{str(row.text).strip()}\n({row.rounds} rounds, {row.new_tokens} tokens, {result.seconds:.2f} s)"

    def _fit(self, messages: list[dict[str, str]]) -> list[dict[str, str]]:
        """The messages, without the oldest turns where they are too long and that is wanted."""
        encode: Any = self.denoiser.encode
        room = self.denoiser.max_length - self.request.gen_length
        while len(messages) > 2 and self.cut and len(encode([messages])[0]) > room:
            messages = messages[2:]
        return messages


def refuse_beside_chat(**given: Any) -> None:
    """Refuse options that a conversation does not read; None, False and one answer to a prompt are not given.

    Raises:
        ValueError: naming the first of them.
    """
    for name, value in given.items():
        if value is not None and value is not False and (name, value) != ("samples", 1):
            raise ValueError(f"{name} must be left out with chat, got {shown(value)}")


def run_chat(conversation: Conversation) -> None:
    """Hold a conversation over standard input, with a sign where a terminal waits for a line."""
    if not sys.stdin.isatty():
        conversation.hold(sys.stdin)
        return
    sys.stdout.write(OPENING + "\n")
    conversation.hold(_typed())


def _typed() -> Iterable[str]:
    while True:
        try:
            yield input("> ")
        except EOFError:
            return
