"""Tables of traces: whole parts, headers that bind them, states read back, and a base that no longer agrees."""

from __future__ import annotations

import json
from typing import Any

import pytest

from decoding.policies.ete import BeamETE
from decoding.traces.branches import FLOOR
from decoding.traces.header import check_header, header, identity
from decoding.traces.trace import check_drift, load_table, rebuild, table_features, write_part
from models.toys.toy import GroupDenoiser

MASK = 2


def row(**changes: Any) -> dict[str, Any]:
    """GroupDenoiser(2, 3) behind a prompt of two: position 1 of the canvas says 1, the first block is open."""
    half = -0.6931
    values = {
        "state_id": "s", "prompt_id": 7, "split": "train", "task": "bits", "driver": "ete",
        "tokens": [0, 1, MASK, 1, MASK, MASK, MASK, MASK], "reference": [1, 1, 1, 0, 0, 0], "unique_answer": True,
        "committed_round": [-1, 1, -1, -1, -1, -1], "opened": 1, "spent": 1, "round": 2, "block_length": 3,
        "recent_confidence": [0.5] * 6 + [0.25] * 6, "recent_token": [1] * 6 + [0] * 6,
        "asked": [True, False, True, True, True, True],
        "branches": [
            {
                "position": -1, "kind": 0, "propensity": 1.0, "log_confidence": -float("inf"), "eq7": -float("inf"),
                "token": [-1, -1, 0, 0, 0], "log_risk": [FLOOR, FLOOR, half, half, half], "harm": -1, "benefit": -1,
                "answer": [],
            }
        ],
    }  # fmt: skip
    assert values.keys() == table_features().keys()
    return {**values, **changes}


@pytest.fixture
def toy() -> GroupDenoiser:
    return GroupDenoiser(2, 3)


def written(folder, denoiser, parts, **settings) -> None:
    check_header(folder, header(denoiser, BeamETE(), **settings))
    for number, rows in enumerate(parts):
        write_part(rows, folder / f"part-train-{number:05d}.parquet")


def test_rows_are_read_back_as_they_were_written(tmp_path, toy):
    written(tmp_path, toy, [[row(), row(state_id="b", branches=[])], [], [row(state_id="c")]])
    found = load_table(tmp_path, toy)
    assert found.features == table_features()
    assert found["state_id"][:] == ["s", "b", "c"]
    stored, expected = found[0], row()
    assert stored["branches"][0].pop("log_risk") == pytest.approx(expected["branches"][0].pop("log_risk"), rel=1e-3)
    assert stored == expected
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        "header.json",
        *(f"part-train-0000{i}.parquet" for i in range(3)),
    ]


def test_a_part_that_was_cut_off_leaves_no_part(tmp_path, toy, monkeypatch):
    written(tmp_path, toy, [])
    monkeypatch.setattr("pathlib.Path.replace", lambda self, target: (_ for _ in ()).throw(OSError("killed")))
    with pytest.raises(OSError, match="killed"):
        write_part([row()], tmp_path / "part-train-00000.parquet")
    with pytest.raises(ValueError, match=r"^a trace folder must hold header.json and part-\*.parquet, got "):
        load_table(tmp_path, toy)


def test_traces_of_another_base_are_refused(tmp_path, toy, monkeypatch):
    written(tmp_path, toy, [[row()]])
    monkeypatch.setattr(GroupDenoiser, "fingerprint", lambda self: "0123456789abcdef")
    with pytest.raises(ValueError, match=r"must be of this base 0123456789ab, got $"):
        load_table(tmp_path, toy)
    with pytest.raises(
        ValueError, match=r"^base must be  to go on with the traces in .*, got 0123456789abcdef: choose"
    ):
        written(tmp_path, toy, [])


def test_other_settings_are_refused_and_the_same_ones_go_on(tmp_path, toy):
    written(tmp_path, toy, [], seed=1, drivers={"ete": "BeamETE()"})
    written(tmp_path, toy, [], seed=1, drivers={"ete": "BeamETE()"})
    with pytest.raises(
        ValueError, match=r"^seed must be 1 to go on with the traces in .*, got 2: choose another --out$"
    ):
        written(tmp_path, toy, [], seed=2, drivers={"ete": "BeamETE()"})
    toy.tokenizer = type("Words", (), {"get_vocab": lambda self: {"a": 0}})()
    with pytest.raises(ValueError, match=r"^tokenizer must be \w+ to go on"):
        written(tmp_path, toy, [], seed=1)
    assert "commit" in json.loads((tmp_path / "header.json").read_text())


def test_broken_and_foreign_parts_are_named(tmp_path, toy):
    written(tmp_path, toy, [[row()]])
    part = tmp_path / "part-train-00000.parquet"
    part.write_bytes(part.read_bytes()[:-20])
    with pytest.raises(ValueError, match=r"part-train-00000.parquet must be a whole parquet file, got a broken one$"):
        load_table(tmp_path, toy)


def test_an_identity_is_short_and_tells_values_apart():
    assert identity("a", [1, 2]) == identity("a", [1, 2])
    assert len({identity("a", [1, 2]), identity("a", [2, 1]), identity("b", [1, 2])}) == 3


def test_a_state_is_rebuilt_from_its_row():
    longer = row(tokens=[1, 0, 1, *row()["tokens"][2:]], opened=2, spent=0, round=3)
    state, mask = rebuild([row(), longer], mask_id=MASK, eos_id=None)
    assert mask.tolist() == [[False] + [True] * 8, [True] * 9]
    assert state.tokens[:, 3:].tolist() == [[2, 1, 2, 2, 2, 2]] * 2
    assert state.tokens[0, 1:3].tolist() == [0, 1]
    assert state.masked[0].tolist() == [False] * 3 + [True, False] + [True] * 4
    assert state.block[0].tolist() == [-1, -1, -1, 0, 0, 0, 1, 1, 1]
    assert (state.num_blocks == 2).all()
    assert state.feasible.sum(-1).tolist() == [2, 5]
    assert (state.opened.tolist(), state.spent.tolist(), state.round.tolist()) == ([1, 2], [1, 0], [2, 3])
    assert state.committed_round[0].tolist() == [0, 0, 0, -1, 1, -1, -1, -1, -1]
    assert state.recent_confidence[0, :, 3:].tolist() == [[0.5] * 6, [0.25] * 6]
    assert state.recent_token[0].tolist() == [[-1] * 3 + [1] * 6, [-1] * 3 + [0] * 6]
    assert not state.recent_confidence[0, :, :3].any()


def with_log_risk(value: float, at: int) -> dict[str, Any]:
    changed = row()
    changed["branches"][0]["log_risk"][at] = value
    return changed


def test_a_base_that_repeats_its_traces_passes(toy):
    """Position 1 is revealed, so the first group crosses and is committed by branch 0; the second is at even odds."""
    check_drift(toy, [row(), row(branches=[])])
    check_drift(toy, [])


def test_drift_is_told_in_one_sentence_with_the_state(toy):
    for drifted in (with_log_risk(-0.6, 2), with_log_risk(-0.8, 4)):
        with pytest.raises(
            ValueError, match=r"^log_risk in the traces must be what this base gives within 0.05, got a difference"
        ):
            check_drift(toy, [row(), {**drifted, "state_id": "bad"}])
        with pytest.raises(ValueError, match=r"difference of 0\.\d+ in state bad$"):
            check_drift(toy, [row(), {**drifted, "state_id": "bad"}])
    check_drift(toy, [with_log_risk(-0.65, 2)])  # within
    check_drift(toy, [with_log_risk(-0.6, 2)], tolerance=0.1)
    check_drift(toy, [with_log_risk(-1.0, 0)])  # committed by the branch, hence not read


def test_the_careful_end_is_not_compared(toy):
    """Nothing committed by branch 0: the first group is read, where float32 itself is coarse."""
    branch = {**row()["branches"][0], "token": [1, 1, 0, 0, 0]}
    for stored, drifts in ((-12.5, False), (-16.0, False), (-11.0, True)):
        one = row(branches=[{**branch, "log_risk": [stored, stored, -0.6931, -0.6931, -0.6931]}])
        if drifts:
            with pytest.raises(ValueError, match="got a difference of 2"):
                check_drift(toy, [one])
        else:
            check_drift(toy, [one])


def test_states_are_taken_evenly_from_those_with_branches(toy, monkeypatch):
    seen = []
    monkeypatch.setattr("decoding.traces.trace._drift", lambda denoiser, one: seen.append(one["state_id"]) or 0.0)
    rows = [row(state_id=str(i), branches=row()["branches"] if i % 2 else []) for i in range(100)]
    check_drift(toy, rows, count=5)
    assert seen == ["1", "21", "41", "61", "81"]


def test_a_drift_that_is_no_number_is_refused(toy):
    read = {**row()["branches"][0], "token": [1, 1, 0, 0, 0], "log_risk": [-11.0] * 2 + [-0.6931] * 3}
    with pytest.raises(ValueError, match="got a difference of inf in state bad"):
        check_drift(GroupDenoiser(2, 3, certainty=float("nan")), [row(), row(state_id="bad", branches=[read])])


def test_the_exploit_set_is_committed_before_the_others_are_read():
    """In one group of six nothing is revealed; branch 0 commits position 0, and the others cross."""
    toy, committed = GroupDenoiser(1, 6, certainty=0.99), {**row()["branches"][0], "token": [-1] + [0] * 5}
    blank = row(tokens=[0, 1] + [MASK] * 6, asked=[True] * 6, committed_round=[-1] * 6, block_length=6)
    check_drift(toy, [{**blank, "branches": [{**committed, "log_risk": [FLOOR] + [-4.605] * 5}]}])
    with pytest.raises(ValueError, match=r"difference of 3\.9"):
        check_drift(toy, [{**blank, "branches": [{**committed, "log_risk": [FLOOR] + [-0.6931] * 5}]}])


COLLECTED = {"task": "bits", "chunk": 4, "prompts": {"train": [6, "x"], "dev": [2, "y"]}}


def collected(folder, denoiser) -> None:
    """Two parts of train prompts, 0 to 3 and 4 to 5."""
    check_header(folder, header(denoiser, BeamETE(), **COLLECTED))
    for number, ids in enumerate(((0, 3), (4, 5))):
        rows = [row(state_id=str(i), prompt_id=i) for i in ids]
        write_part(rows, folder / f"part-train-{number:05d}.parquet")


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("part-train-00002.parquet", "must be of the 6 train prompts of its run, got prompts from 8 on"),
        ("part-train-00001.parquet", "must hold its own part of the prompts, got prompt_id 0"),
        ("part-dev-00000.parquet", "must hold its own part of the prompts, got split 'train'"),
        ("part-test-00000.parquet", "must be of the 0 test prompts of its run"),
        ("part-train-00000 (copy).parquet", "must be named part-SPLIT-NUMBER.parquet"),
        ("part-00000.parquet", "must be named part-SPLIT-NUMBER.parquet"),
    ],
)
def test_a_part_that_was_copied_is_refused_by_name(tmp_path, toy, name, sentence):
    collected(tmp_path, toy)
    assert load_table(tmp_path, toy)["prompt_id"][:] == [0, 3, 4, 5]
    (tmp_path / name).write_bytes((tmp_path / "part-train-00000.parquet").read_bytes())
    with pytest.raises(ValueError, match=sentence) as refused:
        load_table(tmp_path, toy)
    assert name in str(refused.value)


def test_a_part_of_another_run_in_its_own_place_is_refused(tmp_path, toy):
    collected(tmp_path / "a", toy)
    other = header(toy, BeamETE(branches=3), **COLLECTED)
    check_header(tmp_path / "b", other)
    write_part([row(prompt_id=0)], tmp_path / "b" / "part-train-00000.parquet")
    (tmp_path / "b" / "part-train-00000.parquet").replace(tmp_path / "a" / "part-train-00000.parquet")
    with pytest.raises(ValueError, match=r"must be of the run of its header.json, got a part of another one"):
        load_table(tmp_path / "a", toy)


def test_parts_without_their_header_are_refused_before_anything_is_written(tmp_path, toy):
    collected(tmp_path, toy)
    (tmp_path / "header.json").unlink()
    with pytest.raises(
        ValueError, match=r"must hold the header.json of its traces, got part-train-00000.parquet without"
    ):
        check_header(tmp_path, header(toy, BeamETE(), **COLLECTED))
    assert not (tmp_path / "header.json").exists()


@pytest.mark.parametrize("text", ["[]", "1", "null", "{", "", "[" * 100_000, "\ufeff{}"])
def test_a_header_that_is_no_object_is_refused_by_name(tmp_path, toy, text):
    collected(tmp_path, toy)
    (tmp_path / "header.json").write_text(text)
    for call in (lambda: load_table(tmp_path, toy), lambda: check_header(tmp_path, header(toy, BeamETE()))):
        with pytest.raises(ValueError, match=r"header.json must (be JSON|hold a JSON object), got "):
            call()


@pytest.mark.parametrize("number", [0, 3, 5, 8, 11, 16])
def test_a_flipped_bit_of_a_part_is_refused_by_its_file(tmp_path, toy, number):
    from pyarrow.parquet import ParquetFile

    collected(tmp_path, toy)
    file = tmp_path / "part-train-00000.parquet"
    column = ParquetFile(file).metadata.row_group(0).column(number)
    start = column.dictionary_page_offset or column.data_page_offset
    data = bytearray(file.read_bytes())
    data[start + column.total_compressed_size - 1] ^= 1 << (number % 8)  # of the column's last page
    file.write_bytes(bytes(data))
    with pytest.raises(ValueError, match=r"part-train-00000.parquet must be a whole parquet file, got a broken one"):
        load_table(tmp_path, toy)


@pytest.mark.parametrize("change", [{"chunk": "2"}, {"chunk": None}, {"prompts": []}, {"prompts": {"train": 3}}])
def test_a_header_of_other_kinds_is_refused(tmp_path, toy, change):
    collected(tmp_path, toy)
    file = tmp_path / "header.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(ValueError, match=r"header.json must say the prompts of every split|part of another one"):
        load_table(tmp_path, toy)
