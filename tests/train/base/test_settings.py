"""Settings of a run of `train.pretrain` that are no numbers, or no shape, are refused by name before anything is built."""

from __future__ import annotations

import math
import re
from dataclasses import fields
from typing import get_type_hints

import pytest

from train.base.rows import TaskRows
from train.base.settings import Fit, ModelShape

NEEDED = {Fit: {"tokens_per_step": 64}, ModelShape: {}, TaskRows: {"share": 0.5, "rows": 8}}
REAL = [(kind, one.name) for kind in NEEDED for one in fields(kind) if get_type_hints(kind)[one.name] is float]


def test_learning_rates_and_shares_are_among_them():
    assert {(Fit, "muon_lr"), (Fit, "adam_lr"), (ModelShape, "rope_theta"), (TaskRows, "share")} <= set(REAL)


@pytest.mark.parametrize("value", [math.nan, math.inf, -1.0])
@pytest.mark.parametrize(("kind", "name"), REAL, ids=lambda one: getattr(one, "__name__", one))
def test_a_setting_that_is_no_number_or_below_nothing_is_refused(kind, name, value):
    with pytest.raises(ValueError, match=rf"\b{name}\b.* must .*got "):
        kind(**{**NEEDED[kind], name: value})


@pytest.mark.parametrize(
    ("shape", "sentence"),
    [
        ({"layers": 10**7}, "layers must lie in [1, 4096], got 10000000"),
        ({"width": 0}, "width must lie in [1, 1048576], got 0"),
        ({"mlp_width": 10**9}, "mlp_width must lie in [1, 1048576], got 1000000000"),
        ({"heads": 7}, "heads must divide width (256) into even parts, got 7"),
        ({"heads": 256}, "heads must divide width (256) into even parts, got 256"),
    ],
)
def test_a_shape_that_no_model_has_is_refused(shape, sentence):
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        ModelShape(**shape)
