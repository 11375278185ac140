"""The canvas in a terminal, round by round: what was just committed, and why, by colour."""

from __future__ import annotations

import shutil
import time
from typing import Any

from decoding.reading import Reading
from decoding.state import DecodeState, Reason
from models.denoiser import Denoiser

COLOURS = {
    Reason.EXPLOIT: 32,  # green
    Reason.FORCED: 33,  # yellow
    Reason.IMPLICIT: 36,  # cyan
    Reason.EXPLORE: 35,  # magenta
    Reason.CASCADE: 34,  # blue
    Reason.END: 90,  # grey
}
LEGEND = "  ".join(f"\x1b[{colour}m{reason.name.lower()}\x1b[0m" for reason, colour in COLOURS.items())
LEGEND_WIDTH = len("round 999   " + "  ".join(reason.name for reason in COLOURS))
MASK, EOS = "·", "∎"
PAUSE = 0.12  # seconds a round stays on a terminal


class Screen:
    """Shows the first row: in place on a terminal, one plain line a round elsewhere.

    Args:
        stream: an open text file to write to.
        denoiser: whose tokenizer spells the tokens.
    """

    def __init__(self, stream: Any, denoiser: Denoiser) -> None:
        self.stream, self.denoiser = stream, denoiser
        self.terminal = stream.isatty()
        self.paused = 0.0
        self._drawn = 0

    def step(self, state: DecodeState, reading: Reading) -> None:
        """A hook for `generate`: shows the state that this round starts from."""
        self.show(state)

    def show(self, state: DecodeState) -> None:
        """Write the canvas of row 0."""
        pieces = self.spell(state)
        done = int(state.round[0]) - int(state.masked[0].any())  # a state that goes on has been read once more
        if not self.terminal:
            self.stream.write(f"{done:4d}  {''.join(piece for piece, _ in pieces)}\n")
            return
        width = shutil.get_terminal_size().columns - 1
        lines = [*wrap(pieces, width), f"round {done}   {LEGEND}" if width >= LEGEND_WIDTH else f"round {done}"]
        up = f"\x1b[{self._drawn}F\x1b[J" if self._drawn else ""
        self.stream.write(up + "\n".join(lines) + "\n")
        self.stream.flush()
        self._drawn = len(lines)
        time.sleep(PAUSE)
        self.paused += PAUSE

    def spell(self, state: DecodeState) -> list[tuple[str, int]]:
        """Text of every canvas position of row 0, and the Reason if it was committed in the last round, else 0."""
        canvas = state.layout.block >= 0
        rows: list[Any] = [
            v[0, canvas].tolist() for v in (state.tokens, state.masked, state.committed_round, state.reason)
        ]
        last = max((r for r in rows[2]), default=0)
        return [
            (MASK if masked else self._piece(token), reason if not masked and round_ == last else 0)
            for token, masked, round_, reason in zip(*rows, strict=True)
        ]

    def _piece(self, token: int) -> str:
        if token == self.denoiser.eos_id:
            return EOS
        text: str = self.denoiser.tokenizer.decode([token])
        return text.replace("\n", "⏎")


def wrap(pieces: list[tuple[str, int]], width: int) -> list[str]:
    """Coloured lines of at most `width` characters."""
    lines, used = [""], 0
    for text, reason in pieces:
        if used + len(text) > width:
            lines.append("")
            used = 0
        lines[-1] += f"\x1b[{COLOURS[Reason(reason)]}m{text}\x1b[0m" if reason else text
        used += len(text)
    return lines
