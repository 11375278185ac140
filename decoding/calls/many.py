"""`generate_many`: any number of prompts through one batch that stays full, as rows end and others take their places."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import chain, count, groupby, repeat
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from decoding.calls.answers import Answer, Shares, in_order, rows_of, timed
from decoding.calls.draws import Counter
from decoding.calls.fitting import as_denoiser, check_fit, make_sampling, with_cache
from decoding.calls.request import Request, canonical, plain
from decoding.calls.waiting import Entry, Queue
from decoding.comparison.calibration import require_calibrated, resolve_calibrated
from decoding.loop import rounds
from decoding.policy import Policy, first_state
from decoding.policy_by_name import by_default, make_policy
from decoding.prompts import Prompts, read_one
from decoding.rounds.round import Counts, Round
from decoding.sampling import Sampling
from decoding.state import DecodeState, extend
from models.complaints import shown
from models.denoiser import Denoiser

BATCH_SIZE = 32
MISSING: Any = object()


@dataclass(frozen=True)
class Fitted:
    """A call for canvases of one length, as it fits a model.

    Attributes:
        request: lengths and options.
        rule: decides.
        sampling: how candidates are drawn.
        end_ids: ids that end an answer.
    """

    request: Request
    rule: Policy
    sampling: Sampling
    end_ids: tuple[int, ...]

    @property
    def stops_at(self) -> tuple[int, ...] | None:
        """The ids that end a row early; None where none does."""
        return self.end_ids if self.request.options.get("early_stop", True) else None


def generate_many(
    model: Any,
    prompts: Iterable[Any],
    policy: Policy | str | None = None,
    *,
    gen_length: int | Iterable[int] | None = None,
    block_length: int | None = None,
    batch_size: int = BATCH_SIZE,
    ordered: bool = True,
    numbers: Iterable[int] | None = None,
    seed: int = 0,
    temperature: float = 0.0,
    top_p: float = 1.0,
    early_stop: bool = True,
    calibrated: str | Path | None = None,
    **settings: Any,
) -> Iterator[Answer]:
    """Decode any number of prompts, each as it is decoded alone: `for answer in generate_many(model, lines, "ete", gen_length=64)`.

    Args:
        model: as in `generate`.
        prompts: an iterable of strings, chats, or token ids; a sequence is judged whole before the
            first forward, anything else is read as places become free.
        policy: as in `generate`. Settings that follow from the canvas (the steps of `quota`) part the
            prompts: those of one rule are decoded together, and those of the next once they have ended.
        gen_length: positions to generate, EOS included: of all prompts, or an iterable with those of each.
        block_length: must divide every gen_length; by default 32 where it does, else gen_length.
        batch_size: rows at a time, at least 1.
        ordered: yield answers in the order of the prompts, or as they end.
        numbers: of the prompts, which their draws follow; by default 0, 1, 2, ...
        seed: of the draws, each of which follows from seed, number, round and position.
        temperature, top_p, early_stop, calibrated, settings: as in `generate`.

    Yields:
        One answer a prompt.

    Raises:
        ValueError: for contradictions and values out of range, in one sentence with name, rule and value.
    """
    if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
        raise ValueError(f"batch_size must be a whole number of at least 1, got {shown(batch_size)}")
    if isinstance(prompts, str | Mapping) or not isinstance(prompts, Iterable):
        raise ValueError(f"prompts must be an iterable of prompts, got a {type(prompts).__name__}")
    if isinstance(seed, bool) or not isinstance(seed, int):
        raise ValueError(f"seed must be a whole number, got {shown(seed)}")
    if not isinstance(numbers, Iterable | None):
        raise ValueError(f"numbers must be an iterable of whole numbers, got {shown(numbers)}")
    given = {**settings, "block_length": block_length, "temperature": temperature, "top_p": top_p}
    if canonical(given).get("history"):
        raise ValueError("history must be left out of generate_many, which keeps no states")
    calls = Calls(model, policy, given | ({} if early_stop is True else {"early_stop": early_stop}), calibrated)
    if not isinstance(gen_length, Iterable):
        calls.of(gen_length)
    lengths = gen_length if isinstance(gen_length, Iterable) else repeat(gen_length)
    pairs: Iterable[tuple[Entry, Fitted]] = read_entries(
        prompts, lengths, count() if numbers is None else numbers, calls
    )
    if isinstance(prompts, Sequence | Tensor):
        pairs = list(pairs)
        batch_size = min(batch_size, max(1, len(pairs)))
    answers = _answers(calls, pairs, batch_size, seed)
    return _without_places(answers, ordered=ordered)


def _without_places(answers: Generator[tuple[int, Answer], None, None], *, ordered: bool) -> Iterator[Answer]:
    """The answers; who leaves them early ends their decode with them."""
    with closing(answers):
        for _, answer in in_order(answers) if ordered else answers:
            yield answer


class Calls:
    """The call for every length of the canvas.

    Args:
        model, policy: as in `generate`.
        given: every keyword of the call but gen_length.
        calibrated: file of `calibrate.py`, or None.
    """

    def __init__(
        self, model: Any, policy: Policy | str | None, given: Mapping[str, Any], calibrated: str | Path | None
    ) -> None:
        self._policy, self._given, self._calibrated = policy, dict(given), calibrated
        self._model, self._known = model, dict[int | None, Fitted]()
        self.denoiser: Denoiser

    def of(self, gen_length: int | None) -> Fitted:
        """The call for one length; None leaves it to the calibration.

        Raises:
            ValueError: for what does not fit.
        """
        if gen_length not in self._known:
            self._known[gen_length] = self._fit(gen_length)
        return self._known[gen_length]

    def _fit(self, gen_length: int | None) -> Fitted:
        request = resolve_calibrated(self._calibrated, self._policy, {**self._given, "gen_length": gen_length})
        self._model = self.denoiser = as_denoiser(self._model, request.options)
        if self._policy is None and self._calibrated is None:
            request = by_default(request, self.denoiser)
        rule = make_policy(request.policy, request.settings, self.denoiser)
        rule.check_blocks(request.gen_length // request.block_length)
        end_ids = check_fit(request, self.denoiser, prompt_length=1, generator=None)
        with_cache(self.denoiser, request.options.get("use_cache", "none"))
        require_calibrated(self._calibrated, self.denoiser, rule, request, end_ids)
        return Fitted(request, rule, make_sampling(request, self.denoiser, end_ids, rule), end_ids)


def read_entries(
    prompts: Iterable[Any], lengths: Iterable[int | None], numbers: Iterable[Any], calls: Calls
) -> Iterator[tuple[Entry, Fitted]]:
    """Every prompt with the call that it belongs to.

    Args:
        prompts: strings, chats or ids.
        lengths: of their canvases.
        numbers: of the prompts.
        calls: for every length.

    Raises:
        ValueError: naming the prompt.
    """
    length_of, number_of = iter(lengths), iter(numbers)
    for place, prompt in enumerate(prompts):
        length, number = next(length_of, MISSING), next(number_of, MISSING)
        if MISSING in (length, number):
            name = "gen_length" if length is MISSING else "numbers"
            raise ValueError(f"{name} must hold a number for every prompt, got {place} of them")
        number = plain(number)
        if not isinstance(number, int) or isinstance(number, bool) or not -(2**63) <= number < 2**63:
            raise ValueError(f"numbers must be whole numbers of at most 63 bits, got {shown(number)}")
        fitted = calls.of(length)
        try:
            ids = read_one(prompt, calls.denoiser, chat=fitted.request.options.get("chat"))
            check_fit(fitted.request, calls.denoiser, prompt_length=len(ids), generator=None)
        except ValueError as error:
            raise ValueError(f"prompt {place}: {error}") from error
        yield Entry(place, number, tuple(ids), fitted.request.gen_length, fitted.request.block_length), fitted


def _answers(
    calls: Calls, pairs: Iterable[tuple[Entry, Fitted]], batch_size: int, seed: int
) -> Generator[tuple[int, Answer], None, None]:
    """Answers with the places of their prompts, as they end."""
    for _, group in groupby(pairs, key=lambda pair: pair[1].rule):
        first = next(group)
        fitted = first[1]
        entries: Iterable[Entry] = (entry for entry, _ in chain([first], group))
        queue = Queue(list(entries) if isinstance(pairs, list) else entries)
        denoiser = with_cache(calls.denoiser, fitted.request.options.get("use_cache", "none"))
        shares = Shares()
        with closing(last_rounds(denoiser, fitted, queue, batch_size=batch_size, seed=seed)) as ends:
            for seconds, round_ in timed(ends):
                shares.spend(seconds, queue.taken)
                rows = rows_of(round_, end_ids=fitted.end_ids, tokenizer=denoiser.tokenizer)
                for entry, row in zip(round_.entries, rows, strict=True):
                    yield entry.place, Answer(entry.number, row, shares.of(entry.place))


def last_rounds(
    denoiser: Denoiser, fitted: Fitted, queue: Queue, *, batch_size: int, seed: int
) -> Generator[Round, None, None]:
    """The last round of every prompt, those that end together as one.

    Args:
        denoiser: behind a fresh cache.
        fitted: the call.
        queue: the prompts.
        batch_size: rows at a time.
        seed: of the draws.
    """
    nothing = torch.zeros(batch_size, 1, dtype=torch.long, device=denoiser.device)
    state = first_state(
        denoiser, nothing, fitted.rule, gen_length=nothing[:, 0], block_length=1, end_ids=fitted.stops_at
    )
    how: dict[str, Any] = {"sampling": fitted.sampling, "generator": Counter(seed), "watched": False, "queue": queue}
    with closing(rounds(denoiser, state, fitted.rule, attention_mask=nothing > 0, **how)) as steps:
        for round_ in steps:
            if round_.entries:
                yield round_


def decode_in_turns(
    denoiser: Denoiser, batch: Prompts, fitted: Fitted, *, batch_size: int
) -> tuple[DecodeState, Counts]:
    """What `decode` gives for a batch, of which only some rows are decoded at a time.

    Args:
        denoiser: behind a fresh cache.
        batch: prompts with their canvases.
        fitted: the call; nothing is drawn.
        batch_size: rows at a time.
    """
    width, canvas, block = batch.tokens.shape[1], fitted.request.gen_length, fitted.request.block_length
    mask = torch.ones_like(batch.tokens, dtype=torch.bool) if batch.attention_mask is None else batch.attention_mask
    lines = zip(batch.tokens.tolist(), mask.sum(-1).tolist(), strict=True)
    entries = [
        Entry(place, place, tuple(line[width - size : width - canvas]), canvas, block)
        for place, (line, size) in enumerate(lines)
    ]
    queue = Queue(sorted(entries, key=lambda entry: entry.size))
    made = [round_ for _, round_ in timed(last_rounds(denoiser, fitted, queue, batch_size=batch_size, seed=0))]
    places = torch.tensor([entry.place for round_ in made for entry in round_.entries], device=mask.device)
    order = places.argsort()
    state = DecodeState.cat([extend(round_.state, width - round_.state.tokens.shape[-1]) for round_ in made])
    state = state.map(lambda v: v[order])
    spent = {
        name: torch.cat([getattr(round_.counts, name) for round_ in made])[order]
        for name in ("rounds", "sequence_forwards", "token_positions", "explored")
    }
    return replace(state, tokens=torch.where(mask, state.tokens, batch.tokens)), Counts(
        **spent, nfe=made[-1].counts.nfe
    )
