"""The canvas in a terminal, round by round: what was just committed, and why, by colour."""

from __future__ import annotations

import itertools
import shutil
import time
from collections import Counter
from typing import Any, NamedTuple

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
DRAFT = "\x1b[4m"  # underlined: foretold a round early, and the forward of that round agreed
WORDS = {
    Reason.EXPLOIT: "accepted",
    Reason.FORCED: "the best one",
    Reason.IMPLICIT: "explored",
    Reason.EXPLORE: "looked ahead",
    Reason.CASCADE: "foretold",
    Reason.REVOKED: "taken back",
    Reason.AGAIN: "again",
    Reason.END: "after the end",
}
MASK, EOS = "·", "∎"
SIGNS = f"{MASK} masked  {EOS} end"
LEGEND = f"{SIGNS}  " + "  ".join(f"\x1b[{colour}m{WORDS[reason]}\x1b[0m" for reason, colour in COLOURS.items())
LEGEND += f"  {DRAFT}draft\x1b[0m"
LEGEND_WIDTH = len(f"round 999   {SIGNS}  " + "  ".join((*(WORDS[reason] for reason in COLOURS), "draft")))
PIPED = f"round  canvas: {SIGNS}  [new in this round]   how many of what"
SPACES = {"\n": "⏎", "\r": "⏎", "\t": "⇥", "\v": "⏎", "\f": "⏎", "\x1b": "␛"}  # what would break a line of the canvas
PAUSE = 0.12  # seconds a round stays on a terminal


class Piece(NamedTuple):
    """What one position shows: its text, the Reason if it was committed in the last round, and whether as a draft."""

    text: str
    reason: int = 0
    draft: bool = False


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
        self._shown: list[bool] = []  # positions committed in the last picture

    def step(self, state: DecodeState, reading: Reading) -> None:
        """A hook for `generate`: shows the state that this round starts from."""
        self.show(state)

    def show(self, state: DecodeState) -> None:
        """Write the canvas of row 0."""
        pieces = self.spell(state)
        done = int(state.round[0]) - int(state.masked[0].any())  # a state that goes on has been read once more
        if not self.terminal:
            self.stream.write(("" if self._drawn else f"{PIPED}\n") + f"{done:4d}  {plain(pieces)}{tally(state)}\n")
            self._drawn = 1
            return
        width = shutil.get_terminal_size().columns - 1
        lines = [*wrap(pieces, width), f"round {done}   {LEGEND}" if width >= LEGEND_WIDTH else f"round {done}"]
        lines[-1] += tally(state)
        up = f"\x1b[{self._drawn}F\x1b[J" if self._drawn else ""
        self.stream.write(up + "\n".join(lines) + "\n")
        self.stream.flush()
        self._drawn = len(lines)
        time.sleep(PAUSE)
        self.paused += PAUSE

    def spell(self, state: DecodeState) -> list[Piece]:
        """Every canvas position of row 0, with the reason of what was committed since the last picture."""
        canvas = state.block[0] >= 0
        rows: list[Any] = [
            v[0, canvas].tolist() for v in (state.tokens, state.masked, state.committed_round, state.reason)
        ]
        done = int(state.round[0]) - int(state.masked[0].any())
        known, self._shown = self._shown or [False] * len(rows[0]), [not masked for masked in rows[1]]
        return [
            Piece(MASK) if masked else Piece(self._piece(token), 0 if shown else reason, not shown and round_ > done)
            for token, masked, round_, reason, shown in zip(*rows, known, strict=True)
        ]

    def _piece(self, token: int) -> str:
        if token in self.denoiser.end_ids:
            return EOS
        text: str = self.denoiser.tokenizer.decode([token])
        return "".join(SPACES.get(letter, letter) for letter in text)


def plain(pieces: list[Piece]) -> str:
    """One line without colours: what is new in brackets, and at its end how many of what."""
    found = "".join(
        "".join(piece.text for piece in group) if not new else f"[{''.join(piece.text for piece in group)}]"
        for new, group in itertools.groupby(pieces, lambda piece: piece.reason > 0)
    )
    counts = Counter(WORDS[Reason(piece.reason)] for piece in pieces if piece.reason)
    return found + ("   " + ", ".join(f"{count} {word}" for word, count in counts.items()) if counts else "")


def tally(state: DecodeState) -> str:
    """How many drafts of row 0 came true, where it has made any."""
    made, true = int(state.drafts[0]), int(state.drafts_true[0])
    return f"   {true} of {made} drafts came true" if made else ""


def wrap(pieces: list[Piece], width: int) -> list[str]:
    """Coloured lines of at most `width` characters."""
    lines, used = [""], 0
    for piece in pieces:
        if used + len(piece.text) > width:
            lines.append("")
            used = 0
        colour = f"{DRAFT if piece.draft else ''}\x1b[{COLOURS[Reason(piece.reason)]}m" if piece.reason else ""
        lines[-1] += f"{colour}{piece.text}\x1b[0m" if colour else piece.text
        used += len(piece.text)
    return lines
