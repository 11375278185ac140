"""Collecting traces: states and labels by hand on toys, runs that are killed and go on, and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import models
import train.traces.collection
from decoding.policies.ete import BeamETE
from decoding.policies.quota import Sequential
from decoding.policies.threshold import Threshold
from decoding.traces.branches import BARE, FLOOR, KINDS, predict
from decoding.traces.labelling import Labelling
from decoding.traces.trace import check_drift, load_table, rebuild
from models.toys.toy import GroupDenoiser
from train.head.data import HeadData, cascade_gain
from train.head.fit import prepare
from train.head.settings import Fitting

LABELLING = Labelling(states_per_prompt=3, labelled=1, branches=8, strata=2)  # of the fixture
GOLDEN = Path(__file__).parents[2] / "golden" / "llada"


def collected(collector, examples, folder) -> list[dict]:
    collector.run({"train": examples, "dev": examples[:3]}, folder)
    return list(load_table(folder, collector.denoiser))


@pytest.fixture
def rows(collector_of, groups, examples, tmp_path) -> list[dict]:
    return collected(collector_of(groups), examples, tmp_path)


def test_prompts_take_turns_among_the_drivers(rows, examples):
    assert {(r["split"], r["prompt_id"]): r["driver"] for r in rows} == {
        (split, i): ("slow", "fast")[i % 2] for split, count in (("train", 8), ("dev", 3)) for i in range(count)
    }
    prompts = {(r["split"], r["prompt_id"]): "".join(map(str, r["tokens"][:-16])) for r in rows}
    assert all(prompts[split, i] == examples[i].prompt for split, i in prompts)


def test_of_every_prompt_some_states_are_kept_and_some_of_them_labelled(rows):
    for split, prompt in {(r["split"], r["prompt_id"]) for r in rows}:
        of_prompt = [r for r in rows if (r["split"], r["prompt_id"]) == (split, prompt)]
        assert len(of_prompt) == (3 if prompt % 2 == 0 else 2)  # the fast driver has a round for each block
        assert sum(bool(r["branches"]) for r in of_prompt) == 1
    assert len({r["state_id"] for r in rows}) == len(rows)


def test_gains_by_hand(collector_of, speaks_bits, tasks, example, tmp_path):
    """Committing one bit of a group makes the seven others cross; those of the third group cross wrong."""
    everything = Labelling(states_per_prompt=99, labelled=99, branches=24)
    groups, task = speaks_bits(GroupDenoiser(3, 8)), tasks(24, 24)
    collector = collector_of(groups, task, labelling=everything, block_length=24, drivers={"slow": Sequential()})
    rows, seen = collected(collector, [example("0", "0" * 16 + "1" * 8)], tmp_path), set()
    for r in rows:
        alone, *others = r["branches"]
        masked = np.array(r["tokens"][-24:]) == 2
        reference = np.array(r["reference"])[np.array(r["asked"])]
        planned = [i // 8 for i, t in zip(np.flatnonzero(r["asked"]), alone["token"], strict=True) if t == -1]
        for one in others:
            group = one["position"] // 8
            left = int(masked[8 * group : 8 * group + 8].sum())
            fresh = left == 8 and group not in planned  # nothing of the group is revealed or about to be
            expected = (7 if fresh else 0) * (1, 1, -1)[group]
            assert cascade_gain(one, alone, reference, threshold=0.9) == expected
            assert one["log_confidence"] == pytest.approx(np.log(0.5), rel=1e-3)
            seen.add(expected)
    assert seen == {7, 0, -7}


def test_branch_0_is_the_canvas_of_the_plan(rows, groups):
    crossed = 0
    for r in (r for r in rows if r["branches"]):
        alone = r["branches"][0]
        assert (alone["position"], KINDS[alone["kind"]], alone["propensity"]) == (-1, "exploit", 1.0)
        state, mask = rebuild([r], mask_id=2, eos_id=None)
        reading = predict(groups, state.tokens, state.feasible, mask)
        plan = BeamETE(branches=2, gamma=1.0, min_masks=0).plan(state, reading)
        planned = (plan.reason > 0)[0, -16:][torch.tensor(r["asked"])]
        assert [t == -1 for t in alone["token"]] == planned.tolist()
        assert [v == FLOOR for v in alone["log_risk"]] == planned.tolist()
        crossed += int(planned.sum())
    assert crossed > 0


def test_positions_count_from_the_first_place_of_the_canvas(rows):
    for r in (r for r in rows if r["branches"]):
        masked = [t == 2 for t in r["tokens"][-16:]]
        positions = [one["position"] for one in r["branches"][1:]]
        assert len(set(positions)) == len(positions) <= 8
        assert all(masked[j] and r["asked"][j] for j in positions)
        assert all(len(one["token"]) == len(one["log_risk"]) == sum(r["asked"]) for one in r["branches"])
        for one in r["branches"][1:]:
            assert one["token"][sum(r["asked"][: one["position"]])] == -1  # committed by the branch itself
        kinds = [KINDS[one["kind"]] for one in r["branches"]]
        assert kinds == sorted(kinds, key=KINDS.index)


def test_a_state_read_back_is_the_state_that_was_visited(collector_of, groups, examples, tmp_path, monkeypatch):
    visits, keep = [], train.traces.collection.visit
    monkeypatch.setattr(train.traces.collection, "visit", lambda *a, **k: visits.append(keep(*a, **k)) or visits[-1])
    rows = collected(collector_of(groups), examples, tmp_path)
    rows.sort(key=lambda r: (r["prompt_id"] // 4, r["split"]))  # as they were collected
    compared = 0
    for one in visits:
        order = torch.cat([(one.place >= 1).nonzero(), (one.place < 1).nonzero()]).squeeze(1)  # labelled ones last
        for s in order.tolist():
            state, mask = rebuild([rows[compared]], mask_id=2, eos_id=None)
            width = state.tokens.shape[1]
            for name in ("tokens", "masked", "committed_round", "recent_confidence", "recent_token"):
                assert torch.equal(getattr(state, name)[0], getattr(one.state, name)[s][..., -width:]), name
            for name in ("opened", "spent", "round"):
                assert getattr(state, name)[0] == getattr(one.state, name)[s]
            assert torch.equal(state.feasible[0], one.state.feasible[s, -width:])
            assert mask.all()
            compared += 1
    assert compared == len(rows) > 20


@pytest.fixture
def base(speaks_bits):
    """The golden model with bits for words, its head made sharp so that something crosses."""
    denoiser = models.load(GOLDEN, device="cpu")
    denoiser.model.lm_head.weight.data *= 25
    return speaks_bits(denoiser)


def test_a_base_repeats_its_own_traces_and_another_does_not(collector_of, base, examples, tmp_path):
    collector = collector_of(base, beam=BeamETE(threshold=0.6, branches=2))
    rows = collected(collector, examples, tmp_path)
    check_drift(base, rows, tolerance=0.01)
    committed = sum(t == -1 for r in rows if r["branches"] for t in r["branches"][0]["token"])
    assert committed > 3
    base.blocks[0].mlp.down_proj.weight.data *= 1.1
    with pytest.raises(ValueError, match=r"log_risk in the traces must be what this base gives within 0.05, got"):
        check_drift(base, rows)


def test_a_killed_run_goes_on_and_gives_the_same(collector_of, groups, examples, tmp_path, monkeypatch):
    whole = collected(collector_of(groups), examples, tmp_path / "whole")
    write, done = train.traces.collection.write_part, []

    def killed(rows, file):
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(file)
        write(rows, file)

    monkeypatch.setattr(train.traces.collection, "write_part", killed)
    with pytest.raises(KeyboardInterrupt):
        collected(collector_of(groups), examples, tmp_path / "cut")
    monkeypatch.setattr(
        train.traces.collection, "write_part", lambda rows, file: done.append(file) or write(rows, file)
    )
    assert collected(collector_of(groups), examples, tmp_path / "cut") == whole
    names = ["part-dev-00000", "part-train-00000", "part-train-00001"]  # splits at the same pace
    assert [file.stem for file in done] == names
    assert collected(collector_of(groups), examples, tmp_path / "cut") == whole
    assert len(done) == 3  # nothing is collected twice


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"labelling": Labelling(branches=7)}, "labelling"),
        ({"labelling": replace(LABELLING, bare=2)}, "bare"),
        ({"drivers": {"slow": Sequential(), "fast": Threshold(0.5)}}, "drivers"),
        ({"drivers": {"fast": Threshold(0.4), "slow": Sequential()}}, "order"),
        ({"beam": BeamETE(branches=3)}, "beam"),
        ({"seed": 1}, "seed"),
        ({"batch_size": 3}, "batch_size"),
        ({"chunk": 2}, "chunk"),
        ({"block_length": 4}, "block_length"),
    ],
)
def test_a_folder_of_other_settings_is_refused(collector_of, groups, examples, tmp_path, change, name):
    collector_of(groups).run({"train": examples[:1]}, tmp_path)
    with pytest.raises(
        ValueError, match=rf"^{name} must be .* to go on with the traces in .*, got .*: choose another --out$"
    ):
        collector_of(groups, **change).run({"train": examples[:1]}, tmp_path)


def test_a_folder_of_other_prompts_is_refused(collector_of, groups, examples, tmp_path):
    """More prompts would leave the last part short of what was asked for."""
    collector_of(groups).run({"train": examples[:2]}, tmp_path)
    for others in (examples[:3], examples[1:3], [replace(examples[0], response="1"), examples[1]]):
        with pytest.raises(ValueError, match=r"^prompts must be .* to go on with the traces in"):
            collector_of(groups).run({"train": others}, tmp_path)


def test_progress_is_told_of_parts_done_and_of_parts_found(collector_of, groups, examples, tmp_path):
    for _ in range(2):
        progress: list[int] = []
        collector_of(groups).run({"train": examples[:6]}, tmp_path, progress=progress.append)
        assert progress == [4, 2]


@pytest.mark.parametrize("unique", [True, False])
def test_bare_branches_show_what_the_tokens_of_one_plan_do_to_each_other(
    collector_of, trap, tasks, example, tmp_path, unique
):
    """At C = .5 the plan takes the whole trap at once, the second's 0 as well; once the first is 1, that would be another."""
    labelling = Labelling(states_per_prompt=9, labelled=9, branches=3, strata=1, finished=3, bare=3)
    settings = {"drivers": {"slow": Sequential()}, "block_length": 3, "beam": BeamETE(threshold=0.5, implicit=False)}
    collector = collector_of(trap, tasks(3, 3, unique=unique), labelling=labelling, **settings)
    rows = collected(collector, [example("0", "111")], tmp_path)
    rows = [r for r in rows if r["split"] == "train" and r["branches"]]
    first = HeadData(rows, 2, None, 0.9, 4).batch([0])
    assert [one["position"] for one in rows[0]["branches"]][:2] == [-1, -1]  # the plan alone, then nothing
    assert first.alone.tolist() == [[-1, 1, 0, 1]]
    labels = dict(zip(first.position[0].tolist(), first.changed[0].tolist(), strict=True))
    assert labels == {1: [-1, -1, 1, 0], 2: [-1, 0, -1, 0], 3: [-1, 0, 0, -1], -1: [-1] * 4}
    assert not first.valid.any()
    assert (first.harm == -1).all()
    assert not first.beam.any()
    assert not first.gain.any()


def test_bare_branches_change_no_other_label(collector_of, groups, examples, tmp_path):
    for name, bare in (("without", 0), ("with", 4)):
        collector_of(groups, labelling=replace(LABELLING, labelled=3, bare=bare)).run(
            {"dev": examples[:2]}, tmp_path / name
        )
    without, with_ = (list(load_table(tmp_path / name, groups)) for name in ("without", "with"))
    tried = [[one for one in r["branches"] if one["kind"] != BARE] for r in with_]
    assert [r["branches"] for r in without][:2] == tried[:2]  # before the draws differ
    few, more = (HeadData(rows, 2, None, 0.9, 20).batch([0]) for rows in (without, with_))
    assert 0 < more.bare.sum() <= 4
    assert torch.equal(few.valid, more.valid)
    for name in ("gain", "eq7"):
        assert torch.equal(getattr(few, name)[few.valid], getattr(more, name)[more.valid])
    for name in ("harm", "beam", "reference"):
        assert torch.equal(getattr(few, name), getattr(more, name))


def test_traces_of_earlier_versions_still_load_and_go_on(collector_of, groups, examples, tmp_path):
    collector_of(groups).run({"train": examples[:6]}, tmp_path)
    file, last = tmp_path / "header.json", tmp_path / "part-train-00001.parquet"
    header = json.loads(file.read_text())
    assert (header.pop("bare"), header.pop("order")) == (None, ["slow", "fast"])
    assert "bare" not in header["labelling"]
    file.write_text(json.dumps(header))
    last.unlink()
    turned = collector_of(groups, drivers={"fast": Threshold(0.4), "slow": Sequential()})
    with pytest.raises(ValueError, match=r"^order must be \['slow', 'fast'\] to go on .* got \['fast', 'slow'\]: "):
        turned.check({"train": examples[:6]}, tmp_path)
    collector_of(groups).run({"train": examples[:6]}, tmp_path)
    assert {r["prompt_id"] for r in load_table(tmp_path, groups)} == set(range(6))
    (tmp_path / "part-train-00000.parquet").write_bytes(b"broken")
    turned.check({"train": examples[:6]}, tmp_path)  # such a part shows no order, and is told of when it is read


def test_an_unfinished_part_is_no_part(collector_of, groups, examples, tmp_path):
    whole = collected(collector_of(groups), examples, tmp_path / "whole")
    cut = tmp_path / "cut"
    collected(collector_of(groups), examples, cut)
    for part in sorted(cut.glob("part-train-*.parquet")):
        part.with_name(f".{part.name}.aside").write_bytes(part.read_bytes()[:100])
        part.unlink()
    assert collected(collector_of(groups), examples, cut) == whole
    assert not list(cut.glob(".*"))


def test_collection_is_judged_without_a_trace(collector_of, groups, examples, tmp_path):
    collector_of(groups).check({"train": examples}, tmp_path / "new")
    assert list(tmp_path.iterdir()) == []
    collected(collector_of(groups), examples, tmp_path / "run")
    with pytest.raises(ValueError, match="seed must be 0 to go on"):
        collector_of(groups, seed=1).check({"train": examples, "dev": examples[:3]}, tmp_path / "run")
    assert {file.suffix for file in (tmp_path / "run").iterdir()} == {".json", ".parquet"}


def test_a_head_is_judged_on_dev_prompts_alone(collector_of, groups, examples, tmp_path):
    rows = collected(collector_of(groups), examples, tmp_path)
    data = prepare(groups, [tmp_path], Fitting(variants=("features",)), threshold=0.9, seed=0)

    def states(batches) -> list[list[int]]:
        return sorted(tokens for one in batches.batches for tokens in one.state.tokens[:, -16:].tolist())

    def of_split(split: str) -> list[list[int]]:
        return sorted(row["tokens"][-16:] for row in rows if row["split"] == split)

    assert states(data.dev["bits"]) == of_split("dev") != of_split("train")
    assert sorted(states(data.train) + states(data.held)) == of_split("train")
    assert len(data.dev_prompts["bits"]) == len(of_split("dev"))
