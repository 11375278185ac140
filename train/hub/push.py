"""Put a scoring head with its cascade on the Hugging Face hub: ``fewer-rounds push --head FOLDER --name OWNER/NAME``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from models.checkpoints.hub import HUB_NAME
from models.checkpoints.json_files import read_object
from models.complaints import shown

LIBRARY, FENCE = "fewer-rounds", "---\n"


def push(*, head: Path, name: str, base: str | None = None, licence: str = "apache-2.0", private: bool = False) -> None:
    """Upload a head in one commit, with a model card before the page of its folder.

    Who you are, the hub knows from `hf auth login` or HF_TOKEN. Afterwards `--head OWNER/NAME` takes it in every command.

    Args:
        head: its folder.
        name: `owner/name` on the hub; made if it is not there.
        base: `owner/name` of its base on the hub, for the card; default the name that the fit recorded.
        licence: of the head, as the hub spells it.
        private: make a name that is new visible to its owner alone.
    """
    from train.commands.folders import check_head_folder

    for option, given in (("name", name), ("base", base)):
        if given is not None and not HUB_NAME.fullmatch(given):
            raise ValueError(f"{option} must be `owner/name` on the hub, got {shown(given)}")
    if not head.is_dir():
        raise ValueError(f"head must be a folder with head.safetensors, got {head}")
    check_head_folder(head)
    text = model_card(head, name, base=base, licence=licence)

    from models.checkpoints.manifest import check_files, settle

    settle(head)
    check_files(head)
    print(f"{name}: {upload(head, name, text, private=private)}")


def files_of(head: Path) -> list[Path]:
    """What belongs to a head: its weights, its cascade's, figures and sums; nothing of the traces, logs and trials of a run."""
    from models.checkpoints.manifest import MANIFEST, OWN

    names = (*OWN["head"], MANIFEST, "metrics.json", "cascade/metrics.json")
    return [head / name for name in names if (head / name).is_file()]


def upload(head: Path, name: str, card: str, *, private: bool) -> str:
    """Make the name if it is not there and commit all files at once; returns the commit's address.

    Args:
        head: the folder.
        name: on the hub.
        card: README.md there.
        private: see `push`.

    Raises:
        ValueError: in one sentence, where the hub is not reached or refuses.
    """
    import huggingface_hub
    from huggingface_hub.errors import HfHubHTTPError

    add = huggingface_hub.CommitOperationAdd
    parts = [add(file.relative_to(head).as_posix(), str(file)) for file in files_of(head)]
    parts.append(add("README.md", card.encode()))
    api = huggingface_hub.HfApi()
    client_error: type[Any] = HfHubHTTPError.__bases__[0]  # of the HTTP client that the hub's library uses
    try:
        api.create_repo(name, private=private, exist_ok=True)
        done = api.create_commit(name, parts, commit_message="A scoring head")
    except (client_error, OSError) as error:
        reason = str(error).strip().split("\n")[0] or type(error).__name__
        raise ValueError(f"name must be one that the hub lets you write to, got {shown(name)} ({reason})") from error
    return str(done.commit_url)


def model_card(folder: Path, name: str, *, base: str | None, licence: str) -> str:
    """The text of README.md on the hub.

    Args:
        folder: of the head.
        name: `owner/name` that it gets.
        base: `owner/name` of its base on the hub; None takes the name that the fit recorded, where that is one.
        licence: of the head, as the hub spells it.
    """
    known = _fitted_on(folder)
    base = base or (known["name"] if HUB_NAME.fullmatch(known["name"]) else None)
    facts: dict[str, Any] = {"library_name": LIBRARY, "license": licence}
    facts |= {} if base is None else {"base_model": base, "base_model_relation": "adapter"}
    facts |= {"tags": ["masked-diffusion", "decoding", "scoring-head"]}
    return f"{FENCE}{yaml.safe_dump(facts, sort_keys=False)}{FENCE}\n{_usage(name, base, known)}\n{_page(folder)}"


def _usage(name: str, base: str | None, known: dict[str, str]) -> str:
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


def _fitted_on(folder: Path) -> dict[str, str]:
    """Name and fingerprint of the base that metrics.json names; "" where it does not."""
    file = folder / "metrics.json"
    found = read_object(file, finite=False).get("fitted_on", {}) if file.is_file() else {}
    named = found if isinstance(found, dict) else {}
    return {key: str(named.get(key) or "") for key in ("name", "fingerprint")}


def _page(folder: Path) -> str:
    """README.md of the folder, without what a machine reads of it."""
    file = folder / "README.md"
    text = file.read_text(encoding="utf-8") if file.is_file() else ""
    if text.startswith(FENCE):
        text = text.removeprefix(FENCE).partition(f"\n{FENCE}")[2]
    return text.lstrip("\n")


if __name__ == "__main__":
    from train.commands.command_line import run

    run(push)
