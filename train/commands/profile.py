"""Where a round's time goes on this machine, from the command line: ``python -m models.profile``.

Its options are judged before torch is imported.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

from decoding.calls.request import canonical, resolve
from decoding.checked_names import needs_head, uses_head
from decoding.names import find_policy
from models.checkpoints.families import family_of
from models.checkpoints.json_files import read_object
from models.complaints import shown
from train.commands.command_line import keep_options, run
from train.commands.folders import MODEL, check_model, find_head, named_head, or_shipped
from train.commands.options.policy_settings import check_settings

KEPT = "of a profile the rows measured by then are in {out}/speed.part.json: the same command begins anew"
CANVAS, BLOCK = 64, 8  # the longest of the mix; `quota` shares its steps out among the blocks
OF_THE_MIX = ("gen_length", "block_length", "early_stop", "history")


def profile(
    *,
    model: str | None = None,
    head: str | None = None,
    shape: Path | None = None,
    out: Path | None = None,
    device: str | None = None,
    continuous: bool = False,
    prompts: int | None = None,
    rows: int | None = None,
    policy: str | None = None,
    settings: dict[str, Any] | None = None,
    use_cache: Literal["none", "prefix", "dual"] | None = None,
    engine: Literal["auto", "plain", "graphs"] | None = None,
) -> None:
    """Measure copy bandwidth and matrix rate, from them the floor of a round, then what rounds take against it.

    Args:
        model: checkpoint folder or hub id; default the shipped model.
        head: folder of its scoring head.
        shape: folder with config.json: random weights of that shape in place of a model.
        out: folder for speed.json and speed.png, and speed.part.json before the end; continuous.json with continuous.
        device: cpu or cuda; default the GPU if there is one.
        continuous: measure rows that join and leave, against full and fixed batches.
        prompts: with continuous: prompts of mixed length, with canvases of mixed length; default 512.
        rows: with continuous: at a time; default 32.
        policy: with continuous: by its name; default threshold.
        settings: of the policy as one JSON object; each of them is an option of its own too, as --threshold 0.8.
        use_cache: with continuous: of keys and values; default dual.
        engine: with continuous: of the decodes; default auto.
    """
    mix = {"prompts": prompts, "rows": rows, "policy": policy, "settings": settings, "use_cache": use_cache}
    given = {name: value for name, value in {**mix, "engine": engine}.items() if value is not None}
    where = {"model": model, "head": head, "shape": shape, "device": device, "out": out}
    call = check_profile(where, given, continuous=continuous)
    from models.devices import find_device

    find_device(device)
    keep_options()
    logging.basicConfig(format="%(message)s")
    logging.getLogger("decoding.comparison").setLevel(logging.INFO)  # every row as it is measured
    measured = import_module(f"decoding.comparison.{'continuous' if continuous else 'speed'}")
    found = (measured.continuous if continuous else measured.profile)(**call)
    sys.stdout.write(measured.table(found) + "\n")


def check_profile(where: Mapping[str, Any], mix: Mapping[str, Any], *, continuous: bool) -> dict[str, Any]:
    """What is measured, with folders found.

    Args:
        where: model, head, shape and what else every profile takes, None for those left out.
        mix: what was given of the rest, which is of continuous batching alone.
        continuous: whether that is measured.

    Raises:
        ValueError: in one sentence with name, rule and value.
    """
    model, head, shape = (where[name] for name in ("model", "head", "shape"))
    for name, value in () if continuous else mix.items():
        raise ValueError(f"{name} must come with continuous, got {shown(value)} without")
    for name in ("prompts", "rows"):
        if mix.get(name, 1) < 1:
            raise ValueError(f"{name} must be at least 1, got {shown(mix[name])}")
    if shape is None:
        check_model(or_shipped(model, MODEL), "")
    else:
        for name, value in (("model", model), ("head", head)):
            if value is not None:
                raise ValueError(f"{name} must be left out with shape, whose weights are random, got {shown(value)}")
        if not (shape / "config.json").is_file():
            raise ValueError(f"shape must be a folder with config.json, got {shown(str(shape))}")
        family_of(read_object(shape / "config.json"))
    if continuous:
        mix, head = check_mix(mix, model, head, random=shape is not None)
    elif head is not None:
        head = named_head(head)
    return {**where, "model": or_shipped(model, MODEL), "head": head, **mix}


def check_mix(
    mix: Mapping[str, Any], model: str | None, head: str | None, *, random: bool
) -> tuple[dict[str, Any], str | None]:
    """The mix with settings in this project's words, and the head that its policy reads.

    Args:
        mix: as in `check_profile`.
        model: checkpoint folder or hub id; None is the model that ships.
        head: folder of a scoring head, or None.
        random: whether the weights are, for which there is no head.

    Raises:
        ValueError: in one sentence with name, rule and value.
    """
    given = canonical({**mix.get("settings", {}), "use_cache": mix.get("use_cache")})
    for name in OF_THE_MIX:
        if name in given:
            raise ValueError(f"{name} must be left out with continuous, which sets it, got {shown(given[name])}")
    asked = resolve(mix.get("policy", "threshold"), {"gen_length": CANVAS, "block_length": BLOCK, **given})
    check_settings(asked.policy, asked.settings)
    which = (asked.policy, asked.settings, find_policy(asked.policy).head)
    if head is not None and not uses_head(*which):
        raise ValueError(f"head must come with a policy that reads one, got {shown(head)} with policy {asked.policy}")
    head = find_head(model, head) if uses_head(*which) and not random else None
    if head is None and needs_head(*which):
        raise ValueError(f"head must be a folder with head.safetensors for policy {asked.policy}, got none")
    cache = {"use_cache": given.pop("use_cache")} if "use_cache" in given else {}
    return {**mix, **cache, "settings": given}, head


def main() -> None:
    """Run the command."""
    run(profile, kept=KEPT)
