"""`generate` in bulk: every prompt of a file answered in order, one line of JSON each, going on where a run was stopped."""

from __future__ import annotations

import functools
import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TextIO

from decoding.calls.request import refuse_equal
from decoding.files.folder_lock import hold_file
from decoding.names import may_draw
from models.complaints import shown
from models.ranks import by_the_first, find_ranks, the_first_before
from train.commands.answering.batches import decode_all
from train.commands.answering.call import GenerateCall
from train.commands.answering.conversation import refuse_beside_chat
from train.commands.answering.lines import check_line, line_of, lines_of
from train.commands.answering.memory import batch_size_for
from train.commands.answering.parts import merge_parts, part_of, read_parts, rows_of_others
from train.commands.compare import require_at_least

if TYPE_CHECKING:
    from decoding import Policy
    from models.denoiser import Denoiser

Long = Literal["refuse", "cut"]


@dataclass(frozen=True)
class Totals:
    """What a run of many prompts came to.

    Attributes:
        answers: lines written.
        judged, right: answers that a checker judged, and accepted.
        rounds, sequence_forwards, tokens: sums over the answers.
        seconds: of decoding.
    """

    answers: int = 0
    judged: int = 0
    right: int = 0
    rounds: int = 0
    sequence_forwards: int = 0
    tokens: int = 0
    seconds: float = 0.0

    @staticmethod
    def of(lines: Sequence[Mapping[str, Any]]) -> Totals:
        """Of all these lines."""
        return functools.reduce(Totals.plus, lines, Totals())

    def plus(self, line: Mapping[str, Any]) -> Totals:
        """With one line more."""
        return Totals(
            self.answers + 1,
            self.judged + ("accepted" in line),
            self.right + bool(line.get("accepted")),
            self.rounds + line["rounds"],
            self.sequence_forwards + line["sequence_forwards"],
            self.tokens + line["tokens"],
            self.seconds + line["seconds"],
        )

    def report(self, out: str | None) -> str:
        """One sentence for people."""
        if not self.answers:
            return "no prompts"
        right = f", {self.right} of {self.judged} right by the checker" if self.judged else ""
        each = (
            f"{self.rounds / self.answers:.2f} rounds and {self.sequence_forwards / self.answers:.2f} sequence forwards"
        )
        speed = f"{self.tokens / max(self.seconds, 1e-9):.0f} tokens a second"
        return f"{self.answers} answers{right}: {each} each, {speed}" + (f", in {out}" if out else "")


def hold_answers(
    *, out: str | None, samples: int, batch_size: int | None, conversation: bool, **asked: Any
) -> AbstractContextManager[None]:
    """Hold the file that answers are added to, before anything is loaded; of several processes the first holds it for all.

    Args:
        out, samples, batch_size: as in `run_bulk`.
        conversation: refuse these and all that is asked.
        asked: options of prompts.

    Raises:
        ValueError: for counts below 1, another kind of file, and one that cannot be written.
    """
    if conversation:
        refuse_beside_chat(**asked, out=out, samples=samples, batch_size=batch_size)
    require_at_least(1, samples=samples, batch_size=batch_size)
    if out is not None and not out.endswith(".jsonl"):
        raise ValueError(f"out must be a file that ends in .jsonl, got {out}")
    return hold_file(Path(out) if out is not None and find_ranks().first else None)


def run_bulk(
    call: GenerateCall,
    *,
    out: str | None,
    samples: int,
    batch_size: int | None,
    long: Long,
    seed: int,
    device: str | None,
    dtype: str | None,
) -> str:
    """Decode every prompt of a call and write a line of JSON for each; returns what it came to.

    Args:
        call: what was judged.
        out: `.jsonl` file that lines are added to; None writes them to standard output.
        samples: answers to each prompt.
        batch_size: rows at a time; by default what the memory holds.
        long: whether prompts that leave too few positions are refused or cut at their beginning.
        seed: of every draw.
        device: where to run; by default the GPU if there is one.
        dtype: of the weights.
    """
    request, ranks = call.request, find_ranks()
    warm = request.options.get("temperature", 0) > 0
    refuse_equal("samples", samples, drawn=warm or may_draw(request.policy, request.settings))
    if ranks.size > 1 and out is None:
        raise ValueError(f"out must be a file where {ranks.size} processes answer, got none")

    import models
    from decoding import make_policy
    from decoding.calls.fitting import make_sampling

    denoiser = models.load(call.model, device=device, dtype=dtype, adapter=call.adapter, head=call.head)
    rule = make_policy(request.policy, request.settings, denoiser)
    refuse_equal("samples", samples, drawn=make_sampling(request, denoiser, (), rule).at_random)
    ids = fit_prompts(denoiser, call, long=long)
    return _answer(denoiser, call, rule, ids, out=out, samples=samples, batch_size=batch_size, seed=seed)


def _answer(
    denoiser: Denoiser,
    call: GenerateCall,
    rule: Policy,
    ids: list[list[int]],
    *,
    out: str | None,
    samples: int,
    batch_size: int | None,
    seed: int,
) -> str:
    """Decode what the lines of `out` do not answer yet; arguments as in `run_bulk`."""
    ranks = find_ranks()
    lines = [] if out is None else the_first_before(lambda: lines_of(Path(out)))
    aside = {} if out is None else the_first_before(lambda: read_parts(Path(out)))
    length = max(map(len, ids), default=0) + call.request.gen_length
    canvas = {"length": length, "gen_length": call.request.gen_length, "canvases": rule.needs.canvases}
    size = ranks.decide(batch_size or _size_before([*lines, *aside.values()]) or batch_size_for(denoiser, **canvas))
    settings = {**call.settings(rule, denoiser, seed), "batch_size": size, "samples": samples}
    settings["dtype"] = str(next(denoiser.parameters()).dtype).removeprefix("torch.")
    rows = [(asked, sample) for asked in call.prompts for sample in range(samples)]
    for row, line in [*enumerate(lines[: len(rows)]), *((row, one) for row, one in aside.items() if row < len(rows))]:
        check_line(line, *rows[row], settings, str(out))
    if len(lines) > len(rows):
        raise ValueError(
            f"out must hold answers to these prompts alone, got {len(lines)} lines for {len(rows)} in {out}"
        )
    prompts = [ids[index // samples] for index in range(len(rows))]
    done = {*range(len(lines)), *aside}
    done |= rows_of_others([len(one) for one in prompts], size, done, ranks)
    answers = decode_all(
        denoiser,
        prompts,
        call.request,
        batch_size=size,
        seed=seed,
        done=done,
        calibrated=call.calibrated,
    )
    shared = out is not None and (ranks.size > 1 or len(aside) > 0)
    made: dict[int, dict[str, Any]] = {}
    with (
        opened(str(part_of(Path(str(out)), ranks.rank)) if shared else out) as stream,
        progress(len(rows) - (len(done) - len(lines) - len(aside)), len(lines) + len(aside)) as advance,
    ):
        for answer in answers:
            made[answer.index] = line = line_of(answer, *rows[answer.index], call, settings)
            stream.write(json.dumps([answer.index, line] if shared else line, ensure_ascii=False) + "\n")
            stream.flush()
            advance(line["tokens"])
    for found in (aside, *ranks.gather(made)):
        made |= found
    if shared:
        by_the_first(lambda: merge_parts(Path(str(out)), made, len(lines)))
    return Totals.of([*lines, *(made[row] for row in sorted(made) if row >= len(lines))]).report(out)


def fit_prompts(denoiser: Denoiser, call: GenerateCall, *, long: Long) -> list[list[int]]:
    """Token ids of every prompt, those too long refused by name or cut.

    Raises:
        ValueError: naming the first prompt that is too long, and how many are.
    """
    from decoding.prompts import cut_prompt

    encode: Any = denoiser.encode
    chat = call.request.options.get("chat")
    ids: list[list[int]] = encode([_as_list(asked.prompt) for asked in call.prompts], chat=chat)
    room = denoiser.max_length - call.request.gen_length
    over = [index for index, row in enumerate(ids) if len(row) > room]
    if over and (long == "refuse" or room < 1):
        name, length = call.prompts[over[0]].id, len(ids[over[0]])
        raise ValueError(
            f"prompts must leave {call.request.gen_length} of the model's {denoiser.max_length} positions (--long cut drops their "
            f"beginning), got {len(over)} that do not, the first one {shown(name)} with {length} tokens"
        )
    for index in over:
        ids[index] = cut_prompt(_as_list(call.prompts[index].prompt), denoiser, room, chat=chat)
    return ids


@contextmanager
def opened(out: str | None) -> Iterator[TextIO]:
    """Standard output, or a file that lines are added to."""
    if out is None:
        yield sys.stdout
        return
    Path(out).parent.mkdir(parents=True, exist_ok=True)
    with Path(out).open("a", encoding="utf-8") as stream:
        yield stream


@contextmanager
def progress(total: int, done: int) -> Iterator[Any]:
    """A bar with tokens a second on a terminal's standard error; yields what is called with the tokens of every answer."""
    from tqdm import tqdm

    began, tokens = time.perf_counter(), 0
    with tqdm(total=total, initial=done, unit="answer", disable=None, dynamic_ncols=True) as bar:

        def advance(count: int) -> None:
            nonlocal tokens
            tokens += count
            bar.set_postfix_str(f"{tokens / (time.perf_counter() - began):.0f} tokens/s", refresh=False)
            bar.update()

        yield advance


def _size_before(lines: Sequence[Mapping[str, Any]]) -> int | None:
    return lines[0]["settings"].get("batch_size") if lines else None


def _as_list(prompt: Any) -> Any:
    return prompt if isinstance(prompt, str) else list(prompt)
