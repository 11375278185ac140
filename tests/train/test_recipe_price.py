"""What a head costs at a shape, priced on the shape of the golden model."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from train.commands.command_line import run
from train.recipe_price.__main__ import MARK, recipe_price

SIZES = ["--blocks", "[1]", "--prompt", "8", "--gen_length", "16", "--block_length", "8", "--rounds", "4"]
SIZES += ["--batch_size", "2", "--steps", "2", "--device", "cpu"]

pytestmark = pytest.mark.filterwarnings("ignore:.*(LeafSpec|num_workers|IterableDataset)")


@pytest.fixture(scope="module")
def priced(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("price")
    for shape in ("llada", "dream"):
        (folder / shape).mkdir()
        shutil.copy(Path("tests/golden") / shape / "config.json", folder / shape)
    (folder / "page.md").write_text(f"before\n{MARK}\nNot run yet.\n{MARK}\nafter\n")
    shapes = ",".join(str(folder / shape) for shape in ("llada", "dream"))
    run(recipe_price, ["--shapes", shapes, "--out", str(folder / "out"), "--page", str(folder / "page.md"), *SIZES])
    return folder


@pytest.mark.parametrize("shape", ["llada", "dream"])
def test_every_stage_has_a_rate_and_states_that_were_counted(priced, shape):
    found = json.loads((priced / "out" / f"{shape}-1.json").read_text())
    assert found["gpus"] == 1
    for stage in ("collection", "head"):
        assert found[stage]["states_an_hour"] > 0
    collection, [cascade] = found["collection"], found["cascades"]
    assert collection["states_an_hour"] == pytest.approx(3600 * collection["states"] / collection["seconds"])
    assert cascade["blocks"] == 1
    assert cascade["steps_an_hour"] == pytest.approx(3600 * 2 / cascade["seconds"])
    assert 2 <= cascade["states"] <= 4  # of two prompts in each of two steps


def test_the_page_gets_a_line_for_every_shape_and_keeps_the_rest(priced):
    before, table, after = (priced / "page.md").read_text().split(MARK)
    assert (before, after) == ("before\n", "\nafter\n")
    _, _, *rows = [line.split("|")[1].strip() for line in table.splitlines() if line.startswith("|")]
    assert rows == ["dream", "llada"]
    assert "Not run yet" not in table


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (["--rounds", "3"], "rounds must be a multiple of the 2 blocks, got 3"),
        (["--batch_size", "0"], "batch_size must be at least 1, got 0"),
        (["--shapes", "nowhere"], "shapes must be folders with config.json, got nowhere"),
    ],
)
def test_what_cannot_be_priced_is_refused_before_anything_is_written(tmp_path, capsys, change, said):
    arguments = {"--shapes": "tests/golden/llada", "--out": str(tmp_path / "out")}
    given = dict(zip(SIZES[::2], SIZES[1::2], strict=True))
    every = {**arguments, **given, change[0]: change[1]}
    with pytest.raises(SystemExit) as ended:
        run(recipe_price, [part for pair in every.items() for part in pair])
    assert ended.value.code == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
