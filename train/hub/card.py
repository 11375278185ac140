"""The model card of a scoring head on the hub: what a machine reads of it first, then the page of its folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from models.checkpoints.hub import HUB_NAME
from models.checkpoints.json_files import read_object

LIBRARY, FENCE = "fewer-rounds", "---\n"


def card(folder: Path, name: str, *, base: str | None, licence: str) -> str:
    """The text of README.md on the hub.

    Args:
        folder: of the head.
        name: `owner/name` that it gets.
        base: `owner/name` of its base on the hub; None takes the name that the fit recorded, where that is one.
        licence: of the head, as the hub spells it.
    """
    known = fitted_on(folder)
    base = base or (known["name"] if HUB_NAME.fullmatch(known["name"]) else None)
    facts: dict[str, Any] = {"library_name": LIBRARY, "license": licence}
    facts |= {} if base is None else {"base_model": base, "base_model_relation": "adapter"}
    facts |= {"tags": ["masked-diffusion", "decoding", "scoring-head"]}
    return f"{FENCE}{yaml.safe_dump(facts, sort_keys=False)}{FENCE}\n{usage(name, base, known)}\n{page(folder)}"


def usage(name: str, base: str | None, known: dict[str, str]) -> str:
    """How the head is used, and on what."""
    where = "its base" if base is None else f"`{base}`"
    bound = f", whose weights have the fingerprint `{known['fingerprint'][:12]}`" if known["fingerprint"] else ""
    model = base or "BASE"
    return (
        f"A scoring head for {where}{bound}: it says which masked positions a round may commit.\n\n"
        f"```sh\nfewer-rounds generate --model {model} --head {name} --prompt TEXT\n```\n\n"
        f'```python\nimport models\nfrom decoding import generate\n\nmodel = models.load("{model}", head="{name}")\n'
        'print(generate(model, "TEXT", "learned").text)\n```\n'
    )


def fitted_on(folder: Path) -> dict[str, str]:
    """Name and fingerprint of the base that metrics.json names; "" where it does not."""
    file = folder / "metrics.json"
    found = read_object(file, finite=False).get("fitted_on", {}) if file.is_file() else {}
    named = found if isinstance(found, dict) else {}
    return {key: str(named.get(key) or "") for key in ("name", "fingerprint")}


def page(folder: Path) -> str:
    """README.md of the folder, without what a machine reads of it."""
    file = folder / "README.md"
    text = file.read_text(encoding="utf-8") if file.is_file() else ""
    if text.startswith(FENCE):
        text = text.removeprefix(FENCE).partition(f"\n{FENCE}")[2]
    return text.lstrip("\n")
