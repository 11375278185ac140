"""Heads on the hub: what goes up and what its card says, taken by name in commands; one sentence without a network."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import yaml

import models
from models.checkpoints.hub import bytes_to_download, head_folder, is_hub_name
from tests.complaint import complaint
from train.commands.command_line import run
from train.commands.folders import find_head, named_head
from train.hub.pull import pull
from train.hub.push import model_card, push

ROOT = Path(__file__).parents[3]
HEAD, BASE = ROOT / "checkpoints" / "reason-7m-head", ROOT / "checkpoints" / "reason-7m"
NAME = "someone/a-head"


@pytest.fixture
def hub(monkeypatch, tmp_path) -> Path:
    """A folder in place of the hub: commits are written into it, snapshots are copied out of it."""
    store, cache = tmp_path / "hub", tmp_path / "cache"

    def create_repo(self, name, *, private, exist_ok):
        assert exist_ok
        (store / name).mkdir(parents=True, exist_ok=True)
        (store / name / ".private").write_text(str(private))

    def create_commit(self, name, operations, *, commit_message):
        for one in operations:
            target = store / name / one.path_in_repo
            target.parent.mkdir(parents=True, exist_ok=True)
            with one.as_file() as content:
                target.write_bytes(content.read())
        return type("Done", (), {"commit_url": f"https://hub.example/{name}/commit/1"})()

    def snapshot_download(name, *, allow_patterns):
        if not (store / name).is_dir():
            raise OSError(f"404: {name} is not here")
        shutil.copytree(store / name, cache / name, dirs_exist_ok=True)
        return str(cache / name)

    monkeypatch.setattr("huggingface_hub.HfApi.create_repo", create_repo)
    monkeypatch.setattr("huggingface_hub.HfApi.create_commit", create_commit)
    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    return store


def test_a_head_goes_up_with_its_cascade_and_comes_back_as_it_was(hub, tmp_path, capsys):
    run(push, ["--head", str(HEAD), "--name", NAME, "--base", "someone/a-base", "--private"])
    assert capsys.readouterr().out == f"{NAME}: https://hub.example/{NAME}/commit/1\n"
    there = {file.relative_to(hub / NAME).as_posix() for file in (hub / NAME).rglob("*") if file.is_file()}
    weights = {"head.safetensors", "adapter_model.safetensors", "adapter_config.json"}
    foretelling = {f"cascade/{name}" for name in ("cascade.safetensors", "adapter_model.safetensors")}
    assert there >= weights | foretelling | {"checksums.json", "metrics.json", "README.md"}
    assert not {name for name in there if name.endswith((".yaml", ".gz", ".lock"))}
    assert (hub / NAME / ".private").read_text() == "True"
    (hub / NAME / ".private").unlink()
    run(pull, ["--name", NAME, "--into", str(tmp_path / "mine")])
    assert not (tmp_path / "mine.part").exists()
    back = models.load(BASE, head=tmp_path / "mine", device="cpu").head
    ours = models.load(BASE, head=HEAD, device="cpu").head
    assert back.cascade is not None
    assert all(
        bool((a == b).all()) for a, b in zip(back.state_dict().values(), ours.state_dict().values(), strict=True)
    )


def test_the_card_has_facts_for_machines_and_keeps_the_page(hub):
    text = model_card(HEAD, NAME, base="someone/a-base", licence="apache-2.0")
    facts = yaml.safe_load(text.split("---\n")[1])
    assert (facts["library_name"], facts["base_model"], facts["license"]) == (
        "fewer-rounds",
        "someone/a-base",
        "apache-2.0",
    )
    assert f"--model someone/a-base --head {NAME}" in text
    assert (HEAD / "README.md").read_text().strip() in text
    local = model_card(HEAD, NAME, base=None, licence="mit")  # fitted on a folder, which is no name on the hub
    assert "base_model" not in yaml.safe_load(local.split("---\n")[1])


def test_a_card_that_is_pushed_again_has_its_facts_once(tmp_path):
    text = model_card(HEAD, NAME, base="someone/a-base", licence="mit")
    (tmp_path / "README.md").write_text(text)
    assert model_card(tmp_path, NAME, base="someone/a-base", licence="mit").count("library_name") == 1


def test_commands_and_load_take_a_head_by_its_name(hub):
    push(head=HEAD, name=NAME)
    assert Path(find_head(None, NAME)).is_relative_to(hub.parent / "cache")
    assert models.load(BASE, head=NAME, device="cpu").head.config.base


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--head", str(HEAD), "--name", "no name"), "name must be `owner/name` on the hub, got 'no name'"),
        (("--head", str(HEAD), "--name", NAME, "--base", "a"), "base must be `owner/name` on the hub, got 'a'"),
        (("--head", str(BASE), "--name", NAME), f"head must be a folder with head.safetensors, got {BASE}"),
        (
            ("--head", "nowhere/at-all", "--name", NAME),
            "head must be a folder with head.safetensors, got nowhere/at-all",
        ),
    ],
)
def test_a_wrong_push_is_one_sentence(hub, capsys, arguments, said):
    assert complaint(capsys, push, *arguments).endswith(said)
    assert not hub.exists()


def test_a_damaged_head_stays_here(hub, tmp_path, capsys):
    shutil.copytree(HEAD, tmp_path / "head")
    file = tmp_path / "head" / "metrics.json"
    weights = tmp_path / "head" / "head.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    assert file.is_file()
    assert "must be as it was saved" in complaint(capsys, push, "--head", str(tmp_path / "head"), "--name", NAME)
    assert not hub.exists()


def test_a_pull_leaves_what_is_there(hub, tmp_path, capsys):
    push(head=HEAD, name=NAME)
    capsys.readouterr()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "kept").touch()
    told = complaint(capsys, pull, "--name", NAME, "--into", str(tmp_path / "mine"))
    assert told.endswith(f"into must be a new or empty folder, got {tmp_path / 'mine'}")
    assert "someone/other" in complaint(capsys, pull, "--name", "someone/other", "--into", str(tmp_path / "new"))
    assert not (tmp_path / "new").exists()


@pytest.fixture
def offline(monkeypatch, tmp_path) -> None:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.utils._http.is_offline_mode", lambda: True, raising=False)


def test_without_a_network_it_is_one_sentence(offline, capsys):
    assert complaint(capsys, push, "--head", str(HEAD), "--name", NAME).count(NAME) == 1
    with pytest.raises(ValueError, match=rf"head must be a local folder or on the hub, got '{NAME}'"):
        named_head(NAME)
    assert bytes_to_download(NAME) == 0


def test_a_folder_comes_before_a_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert is_hub_name("a/b")
    (tmp_path / "a").mkdir()
    assert not is_hub_name("a/b")  # a folder of that owner is here: the name is a mistyped path
    assert head_folder("a/b") == Path("a/b")


def test_what_is_not_here_is_counted(monkeypatch):
    file = lambda size, will: type("File", (), {"file_size": size, "will_download": will})()  # noqa: E731
    files = [file(7, True), file(5, False), file(None, True)]
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda name, *, allow_patterns, dry_run: files)
    assert bytes_to_download("owner/name") == 7
    assert bytes_to_download(BASE) == 0
