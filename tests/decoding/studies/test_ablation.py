"""The cells of an ablation and their paired comparison."""

import numpy as np

from decoding.comparison.curves import resample
from decoding.comparison.problems import Problems
from decoding.comparison.runner import make_runner
from decoding.studies.ablation import MODES, figures, task_rows
from models.toys.toy import GroupDenoiser


class Spelling:
    """A tokenizer of the digits 0 and 1."""

    def __call__(self, text, **_):
        return {"input_ids": [int(letter) for letter in text]}

    def decode(self, ids, **_):
        return "".join(map(str, ids))


def test_every_mode_value_and_grid_point_is_a_row_on_the_same_prompts():
    model = GroupDenoiser(2, 4)
    model.tokenizer, model.encode = Spelling(), lambda prompts, chat: [[int(c) for c in p] for p in prompts]
    problems = Problems("groups", ("111",), ("000", "010"), 8, 4)
    options = {"heads": None, "batch_size": 2, "seed": 0, "progress": False, "out": None}
    runner = make_runner(model, problems, lambda prompt, text: text == "00000000", **options)
    base = {"gamma": 0.6, "min_masks": 0, "step_budget": None}
    rows = task_rows(runner, base, {"branches": [1, 2]}, {"branches": [1, 2], "gamma": [0.0, 0.6]})
    assert [row["swept"] for row in rows] == ["reference", *["mode"] * 4, *["branches"] * 2, *["grid"] * 4]
    assert [row["value"] for row in rows[1:5]] == list(MODES)
    assert rows[-1]["value"] == {"branches": 2, "gamma": 0.6}
    rounds = {str(row["value"]): row["rounds"]["estimate"] for row in rows[:5]}
    assert rounds["sequential"] == 8
    assert rounds["both"] <= rounds["neither"] < 8
    assert {row["accuracy"]["estimate"] for row in rows} == {1.0}
    both = next(row for row in rows if row["value"] == "both")
    assert (both["rounds_ratio"], both["accuracy_difference"]) == (
        {"estimate": 1.0, "low": 1.0, "high": 1.0},
        {"estimate": 0.0, "low": 0.0, "high": 0.0},
    )
    assert next(row for row in rows if row["value"] == {"branches": 2, "gamma": 0.0})["explored_share"]["high"] == 0
    assert both["explored_share"]["estimate"] > 0


def test_a_cell_is_compared_with_both_prompt_by_prompt():
    def table(right, rounds, forwards, explored):
        columns = {"right": right, "rounds": rounds, "sequence_forwards": forwards, "explored": explored}
        return {name: np.array(values, float) for name, values in columns.items()}

    cell, both = table([1, 0], [6, 2], [6, 2], [0, 0]), table([1, 1], [2, 2], [5, 3], [1, 1])
    found = figures(resample(2, seed=0), cell, both)
    assert (found["n"], found["accuracy"]["estimate"], found["rounds"]["estimate"]) == (2, 0.5, 4)
    assert (found["rounds_ratio"]["estimate"], found["forwards_ratio"]["estimate"]) == (2, 1)
    assert (found["accuracy_difference"]["low"], found["accuracy_difference"]["high"]) == (-1, 0)
    assert found["rounds_ratio"]["low"] == 1
