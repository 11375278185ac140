"""Texts and rounds of a comparison: those of the decode itself, kept once, and rebuilt where they are missing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import decoding.comparison.runs
from decoding.api import generate
from decoding.comparison.arms import Arm
from decoding.comparison.compare import compare
from decoding.comparison.problems import Problems
from decoding.comparison.records.format import TEXTS, TRACES, read_rows, write_rows
from decoding.comparison.records.record import Records
from decoding.comparison.records.replay import Replay
from decoding.features import NAMES
from decoding.policies.learned import Learned, score
from decoding.policies.threshold import Threshold
from models.heads.config import HeadConfig
from models.heads.scoring_head import ScoringHead
from models.toys.toy import GroupDenoiser, TableDenoiser

GROUPS, SIZE = 2, 3
LENGTH = GROUPS * SIZE


class Digits:
    """A tokenizer of the digits themselves."""

    def __call__(self, text, **_):
        return {"input_ids": [int(digit) for digit in text]}

    def decode(self, ids, **_):
        return "".join(map(str, ids))


def toy() -> GroupDenoiser:
    denoiser = GroupDenoiser(GROUPS, SIZE, certainty=0.999999)
    denoiser.tokenizer = Digits()
    denoiser.encode = lambda prompts, chat=None: [Digits()(prompt)["input_ids"] for prompt in prompts]
    return denoiser


EXPLORING = {"gamma": 0.6, "min_masks": 0, "step_budget": None, "initial_blocks": GROUPS, "branches": 4, "c_info": 0.5}
ARMS = (
    Arm("sequential", "headless", "sequential"),
    Arm("threshold", "headless", "threshold", "threshold", (0.4, 0.9)),
    Arm("ete", "headless", "ete", "threshold", (0.9,), EXPLORING),
    Arm(
        "drafts", "headless", "verified", "threshold", (0.9,), {"rule": "threshold", "canvases": 3, "source": "reading"}
    ),
    Arm("draft-verify", "headless", "draft-verify", "draft", (0.4,), {"groups": 2}),
    Arm("random", "control", "random"),
)
PROBLEMS = Problems("groups", ("010", "011"), ("100", "101", "110", "111", "001"), LENGTH, SIZE)


def compared(folder: Path, *, replays: int = 3) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The rows that a comparison leaves."""
    records = Records(folder, replays)
    how = {"out": folder, "batch_size": 2, "progress": False, "records": records}
    compare(toy(), ARMS, PROBLEMS, lambda prompt, text: text.startswith("0"), **how)
    return list(read_rows(folder / TEXTS)), list(read_rows(folder / TRACES))


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("records")


@pytest.fixture(scope="module")
def rows(folder) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    return compared(folder)


def played(trace: dict[str, Any]) -> list[str | None]:
    """The canvas after all rounds of a trace."""
    canvas: list[str | None] = [None] * trace["gen_length"]
    for round_ in trace["rounds"]:
        for commit in round_["commits"]:
            canvas[commit["position"]] = commit["token"]
        for position in round_["taken_back"]:
            canvas[position] = None
    return canvas


def test_there_is_a_text_for_every_prompt_and_arm_with_what_it_cost(rows):
    texts, _ = rows
    assert len(texts) == len(ARMS) * 5
    alone = generate(toy(), ["100"], "threshold", threshold=0.4, gen_length=LENGTH, block_length=SIZE)
    row = next(row for row in texts if (row["arm"], row["prompt"]) == ("threshold", "100"))
    assert (row["text"], row["rounds"], row["dial"]) == (alone.text[0], int(alone.rounds[0]), 0.4)
    assert row["right"] == row["text"].startswith("0")
    assert (row["version"], row["split"], row["kind"]) == (1, "test", "headless")


def test_the_rounds_of_a_trace_end_in_its_text(rows):
    texts, traces = rows
    assert len(traces) == len(ARMS) * 3
    known = {(row["arm"], row["prompt_id"]): row for row in texts}
    for trace in traces:
        text = known[trace["arm"], trace["prompt_id"]]
        assert "".join(played(trace)) == text["text"]
        assert len(trace["rounds"]) == text["rounds"]


def test_commits_have_confidence_and_reason(rows):
    _, traces = rows
    commits = [c for trace in traces for round_ in trace["rounds"] for c in round_["commits"]]
    assert all(0 < c["confidence"] <= 1 and c["risk"] is None for c in commits)
    reasons = {t["arm"]: {c["reason"] for r in t["rounds"] for c in r["commits"]} for t in traces}
    assert reasons["sequential"] == {"forced"} or reasons["sequential"] == {"exploit"}
    assert "explore" in reasons["ete"]


def test_branches_are_those_that_share_a_forward_and_one_is_kept(rows):
    texts, traces = rows
    for trace in (t for t in traces if t["arm"] == "ete"):
        forwards = next(
            row["sequence_forwards"] for row in texts if (row["arm"], row["prompt_id"]) == ("ete", trace["prompt_id"])
        )
        assert forwards == len(trace["rounds"]) + sum(max(0, len(one["branches"]) - 1) for one in trace["rounds"])
        for round_ in (one for one in trace["rounds"] if one["branches"]):
            written = {(c["position"], c["token"]) for c in round_["commits"]}
            there = [{(c["position"], c["token"]) for c in b["commits"]} <= written for b in round_["branches"]]
            assert there == [b["kept"] for b in round_["branches"]]
            assert there.count(True) == 1


def test_drafts_that_came_true_are_the_commits_that_say_so(rows):
    _, traces = rows
    seen = 0
    for trace in (t for t in traces if t["arm"] == "drafts"):
        for round_ in trace["rounds"]:
            true = {(d["position"], d["token"]) for d in round_["drafts"] if d["came_true"]}
            assert {(c["position"], c["token"]) for c in round_["commits"] if c["draft"]} == true
            seen += len(round_["drafts"])
            assert round_["branches"] == []
    assert seen


def test_what_is_there_is_not_decoded_again(rows, folder, monkeypatch):
    monkeypatch.setattr(decoding.comparison.runs, "generate", None)  # would fail
    assert compared(folder) == rows


def test_what_is_missing_or_not_the_ledgers_is_decoded_again(rows, tmp_path):
    compared(tmp_path)
    texts, traces = (list(read_rows(tmp_path / name)) for name in (TEXTS, TRACES))
    write_rows(tmp_path / TEXTS, [{**texts[0], "text": "another"}, *texts[9:]])
    write_rows(tmp_path / TRACES, traces[4:])
    assert compared(tmp_path) == rows


def test_no_rounds_are_kept_where_none_are_asked_for(rows, tmp_path):
    texts, traces = compared(tmp_path, replays=0)
    assert (texts, traces) == (rows[0], [])


@pytest.mark.parametrize("replays", [-1, 101])
def test_a_number_of_replays_out_of_range_is_refused(tmp_path, replays):
    with pytest.raises(ValueError, match=rf"^replays must lie in \[0, 100\], got {replays}$"):
        Records(tmp_path, replays)


def test_a_head_gives_the_risk_of_what_its_policy_commits():
    head = ScoringHead(HeadConfig("linear", NAMES)).requires_grad_(False)
    head.readout.weight.normal_(std=0.3, generator=torch.Generator().manual_seed(0))
    policy, told = Learned(head, rule="each", risk_bound=0.5), []
    replay = Replay(policy, 1, str)

    def watch(state, reading):
        told.append(score(head, state, reading).risk[0, state.block[0] >= 0])
        replay.step(state, reading)

    made = generate(toy(), ["100"], policy, gen_length=LENGTH, block_length=SIZE, on_step=watch)
    replay.finish(made.state)
    (rounds,) = replay.rounds
    assert len(rounds) == len(told) == int(made.rounds[0])
    for round_, risk in zip(rounds, told, strict=True):
        for commit in round_["commits"]:
            assert commit["risk"] == pytest.approx(float(risk[commit["position"]]), abs=1e-6)
            assert (commit["risk"] < 0.5) == (commit["reason"] == "exploit")


def test_commits_behind_the_end_of_an_answer_are_no_commits():
    table = torch.full((7, 7), -8.0)
    for position, token in enumerate((0, 0, 1, 5, 2, 3, 4)):  # the prompt, two tokens, the end, three more
        table[position, token] = 4.0
    replay = Replay(Threshold(0.9), 1, str)
    denoiser = TableDenoiser(table, mask_id=6, eos_id=5)
    made = generate(denoiser, torch.tensor([[0]]), Threshold(0.9), gen_length=6, on_step=replay.step)
    replay.finish(made.state)
    ((only,),) = replay.rounds
    assert [(c["position"], c["token"]) for c in only["commits"]] == [(0, "0"), (1, "1"), (2, "5")]
    assert only["ended_from"] == 3
