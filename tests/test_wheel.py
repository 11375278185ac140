"""The wheel: built, installed beside nothing else of ours, and used from a foreign directory without a network."""

import os
import subprocess
import sys
import zipfile
from importlib.util import find_spec
from pathlib import Path

import pytest

MISSING = [name for name in ("pip", "hatchling") if find_spec(name) is None]
pytestmark = pytest.mark.skipif(
    bool(MISSING), reason=f"a wheel is built without a network, by {', '.join(MISSING)} if it is installed"
)
ROOT = Path(__file__).parents[1]
OFFLINE = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"}


def pip(*arguments: str) -> None:
    quiet = ("--quiet", "--disable-pip-version-check", "--no-deps", "--no-index")
    subprocess.run([sys.executable, "-m", "pip", arguments[0], *quiet, *arguments[1:]], check=True, timeout=300)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    pip("wheel", "--no-build-isolation", "--wheel-dir", str(out), str(ROOT))
    (built,) = out.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def site(wheel, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    pip("install", "--target", str(folder), str(wheel))
    return folder


def python(code: str, cwd: Path, *path: Path) -> subprocess.CompletedProcess[str]:
    environment = {**OFFLINE, "PYTHONPATH": os.pathsep.join(map(str, path))}
    return subprocess.run(
        [sys.executable, "-c", code], cwd=cwd, env=environment, capture_output=True, text=True, timeout=120
    )


def test_wheel_holds_packages_configs_and_the_small_base(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    tops = {name.partition("/")[0] for name in names if ".dist-info/" not in name}
    assert tops == {"decoding", "models", "train", "fewer_rounds.py"}
    data = "train/_data"
    sources = {"configs": f"{data}/configs", "checkpoints/reason-7m": f"{data}/checkpoints/reason-7m"}
    for source, target in sources.items():
        files = [file for file in (ROOT / source).rglob("*") if file.is_file()]
        assert {f"{target}/{file.relative_to(ROOT / source).as_posix()}" for file in files} <= names
    assert f"{data}/checkpoints/reason-7m/model.safetensors" in names
    commands = {file.name for file in ROOT.glob("*.py")} - {"fewer_rounds.py"}
    assert {f"{data}/{name}" for name in commands} <= names
    report = {f"train/report/templates/{file.name}" for file in (ROOT / "train/report/templates").iterdir()}
    schemas = {f"decoding/comparison/records/{kind}.schema.json" for kind in ("texts", "traces")}
    assert report | schemas <= names
    assert {f"{package}/py.typed" for package in ("decoding", "models", "train")} <= names
    assert not any(name.startswith("tests") or "/runs/" in name for name in names)


def test_installed_wheel_decodes_from_a_foreign_directory(site, tmp_path):
    code = (
        "import decoding, models, train.commands.command_line as command\n"
        "from train.tasks import get\n"
        "task, base = get('countdown3'), command.shipped('checkpoints/reason-7m')\n"
        "result = decoding.generate(base, '2,3,4,24', 'threshold', gen_length=24, block_length=8)\n"
        "print(decoding.__file__, base, result.text, result.nfe, sep='\\n')\n"
    )
    done = python(code, tmp_path, site)
    assert done.returncode == 0, done.stderr
    package, base, text, nfe = done.stdout.splitlines()
    assert Path(package) == site / "decoding" / "__init__.py"
    assert Path(base) == site / "train" / "_data" / "checkpoints" / "reason-7m"
    assert text.startswith("['")
    assert 1 <= int(nfe) <= 24


def test_decoding_says_so_where_models_is_another_package(site, tmp_path):
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "__init__.py").touch()
    done = python("import decoding", tmp_path, tmp_path, site)
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last == f"ImportError: package decoding in {site} needs the package models beside it, got {tmp_path}"


SUM = ("--prompt", "2,3,4,24", "--task", "countdown3", "--policy", "threshold")


def console(site: Path, cwd: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The console script of the installed wheel."""
    environment = {**OFFLINE, "PYTHONPATH": os.pathsep.join((str(cwd), str(site)))}
    script = [sys.executable, str(site / "bin" / "fewer-rounds"), *arguments]
    return subprocess.run(script, cwd=cwd, env=environment, capture_output=True, text=True, timeout=300)


def test_console_script_works_from_a_folder_with_packages_of_the_same_names(site, tmp_path):
    for name in ("models", "train"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise SystemExit('not this one')")
    (tmp_path / "decoding.py").write_text("raise SystemExit('not this one')")
    done = console(site, tmp_path, "generate", *SUM)
    assert done.returncode == 0, done.stderr
    assert "says the checker of countdown3" in done.stdout
    (tmp_path / "train" / "__init__.py").unlink()
    (tmp_path / "train").rmdir()
    (tmp_path / "train.py").write_text("raise SystemExit('not this one')")
    wrong = console(site, tmp_path, "generate", *SUM[:4], "--policy", "tea")
    assert (wrong.returncode, wrong.stderr.count("\n")) == (2, 1)
    assert wrong.stderr.startswith("fewer-rounds generate: policy must be one of")


def test_console_script_names_its_commands(site, tmp_path):
    listed = console(site, tmp_path, "--help").stdout
    assert [line.split()[0] for line in listed.splitlines()[2:7]] == [
        "generate",
        "compare",
        "train",
        "study",
        "calibrate",
    ]
    wrong = console(site, tmp_path, "genrate")
    assert wrong.returncode == 2
    assert wrong.stderr.endswith("got 'genrate': did you mean generate?\n")
    assert console(site, tmp_path, "--version").stdout.strip() == "0.1.0"
    for command in ("compare", "train", "study", "calibrate", "profile", "fit-cascade"):
        assert console(site, tmp_path, command, "--help").stdout.startswith(f"usage: fewer-rounds {command}")
