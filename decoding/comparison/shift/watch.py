"""The running test of a calibration file over the calls of a process."""

from __future__ import annotations

import logging
import math
from functools import lru_cache
from itertools import compress
from pathlib import Path
from typing import TYPE_CHECKING

from decoding.comparison.calibration import Calibration
from decoding.comparison.shift.exchangeable import Reference, ShiftTest, scores_of

if TYPE_CHECKING:
    from torch import Tensor

    from decoding.generation import Generation

logger = logging.getLogger(__name__)


class Watch:
    """The running test of one calibration file, over all calls of this process that name it."""

    def __init__(self, test: ShiftTest) -> None:
        self.test, self._known, self.warned = test, set[tuple[int, ...]](), False

    def see(self, made: Generation, attention_mask: Tensor | None) -> None:
        """Take in every prompt of a call that is new, and warn once.

        A prompt seen before tells nothing of new prompts: it is left out, and so are further answers to it.

        Args:
            made: what the call gave.
            attention_mask: False on left padding, [B, L]; None where there is none.
        """
        scores = scores_of(figures_of(made))
        prompt = made.state.block < 0
        kept = (prompt if attention_mask is None else prompt & attention_mask.to(prompt.device).bool()).tolist()
        for row, ids in enumerate(made.sequences.tolist()):
            asked = tuple(compress(ids, kept[row]))
            if asked not in self._known:
                self._known.add(asked)
                self.test.see({name: values[row] for name, values in scores.items()})
        if self.test.shifted and not self.warned:
            self.warned = True
            logger.warning("%s", self.test.sentence())


def figures_of(made: Generation) -> dict[str, list[float]]:
    """What `scores_of` reads, of every row of a call."""
    from decoding.comparison.statistics import information, is_predicted

    predicted = is_predicted(made.state)
    bits = (information(made.state) * predicted).sum(-1) / math.log(2)
    found = {
        "bits": bits,
        "commits": predicted.sum(-1),
        "unforced": made.state.accepted.sum(-1),
        "drafts": made.drafts,
        "drafts_true": made.drafts_true,
    }
    return {name: values.double().tolist() for name, values in found.items()}


@lru_cache(maxsize=16)
def _watch(path: str, changed: int) -> Watch | None:
    reference = Reference.read(Calibration.load(path).reference)
    return None if reference is None or not reference.scores else Watch(ShiftTest(reference))


def watch_for_shift(path: str | Path | None, made: Generation, attention_mask: Tensor | None) -> None:
    """Test the prompts of a call that named a calibration file, together with those of earlier calls, and warn once.

    Args:
        path: file of `calibrate.py`, or None; a file without scores is not tested.
        made: what the call gave.
        attention_mask: False on left padding, or None.
    """
    if path is None:
        return
    watch = _watch(str(Path(path).resolve()), Path(path).stat().st_mtime_ns)
    if watch is not None:
        watch.see(made, attention_mask)
