"""The shape of the code base: which folder may import which, and what library code leaves alone."""

import ast
import functools
import re
import statistics
import subprocess
import sys
from collections.abc import Collection
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from tests.mutation.catalogue import MUTATIONS

ROOT = Path(__file__).parents[1]
ALLOWED = {  # imports point one way: commands -> train -> decoding -> models
    "models": {"models"},
    "decoding": {"decoding", "models"},
    "train": {"train", "decoding", "models"},
    ".": {"train", "decoding", "models"},
}
LIBRARY = [file for folder in ("models", "decoding", "train") for file in sorted((ROOT / folder).rglob("*.py"))]
COMMANDS = sorted(ROOT.glob("*.py"))
TENSOR_PROGRAMS = [
    *(ROOT / "decoding" / f"{name}.py" for name in ("commit", "features", "policy", "state")),
    *sorted((ROOT / "decoding" / "policies").rglob("*.py")),
]
PACKS_ITS_ROWS = {"decoding/policies/learned_ete.py"}  # foretells its branches in chunks of memory
MOST_MODULES = 15
MOST_LINES = 300
LONGEST, MEDIAN = 60, 8  # lines of a function without its docstring
EXPLAINED_FROM = 4  # parameters
WAITS_FOR_OTHERS = {"decoding/files/folder_lock.py"}
HOOKS = {"on_train_batch_end"}  # of Lightning, which explains them
WAITS = ("item", "tolist", "cpu", "numpy", "nonzero")


def name_of(file: Path) -> str:
    return str(file.relative_to(ROOT))


def folder_of(file: Path) -> str:
    parts = file.relative_to(ROOT).parts
    return parts[0] if len(parts) > 1 else "."


@functools.cache
def tree_of(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"))


@functools.cache
def nodes_of(file: Path) -> list[ast.AST]:
    return list(ast.walk(tree_of(file)))


def imported(file: Path) -> set[str]:
    """Top-level names of everything that a file imports, wherever in the file."""
    names = set()
    for node in nodes_of(file):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name_of(file)} line {node.lineno}: relative import"
            names.add(str(node.module).partition(".")[0])
    return names


@pytest.mark.parametrize("file", [*LIBRARY, *COMMANDS], ids=name_of)
def test_imports_point_one_way(file):
    own = {"models", "decoding", "train", "generate", "compare", "calibrate", "study", "tests"}
    assert imported(file) & own <= ALLOWED[folder_of(file)]
    if folder_of(file) in ("models", "decoding"):
        assert not imported(file) & {"lightning", "pytorch_lightning", "jsonargparse"}


def modules() -> dict[str, Path]:
    """Dotted name -> file of every module of the library."""
    names = {".".join(file.relative_to(ROOT).with_suffix("").parts): file for file in LIBRARY}
    return {name.removesuffix(".__init__"): file for name, file in names.items()}


def imports(file: Path, known: Collection[str]) -> set[str]:
    """Modules of the library that a file imports, inside functions too."""
    found = set()
    for node in nodes_of(file):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            dotted = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= (dotted & set(known)) or {str(node.module)}
    return found & set(known)


def test_no_module_imports_itself_by_a_detour():
    known = modules()
    graph = {name: imports(file, known) for name, file in known.items()}
    TopologicalSorter(graph).prepare()  # raises CycleError, which names the circle


@pytest.mark.parametrize("folder", sorted({file.parent for file in LIBRARY}), ids=name_of)
def test_a_folder_is_seen_at_a_glance(folder):
    assert len([file for file in folder.glob("*.py") if file.name != "__init__.py"]) <= MOST_MODULES


@pytest.mark.parametrize("file", LIBRARY, ids=name_of)
def test_a_file_is_read_in_one_sitting(file):
    assert len(file.read_text(encoding="utf-8").splitlines()) <= MOST_LINES


def length(function: ast.FunctionDef) -> int:
    """Lines of a function, its docstring left out."""
    first = function.body[0]
    explained = first.end_lineno - first.lineno + 1 if ast.get_docstring(function) is not None else 0
    return function.end_lineno - function.lineno + 1 - explained


def test_functions_are_short():
    lengths = {
        f"{name_of(file)}: {node.name}": length(node)
        for file in LIBRARY
        for node in nodes_of(file)
        if isinstance(node, ast.FunctionDef)
    }
    assert {name: lines for name, lines in lengths.items() if lines > LONGEST} == {}
    assert statistics.median(lengths.values()) <= MEDIAN


def is_command(file: Path) -> bool:
    """Whether a file can be run: it ends in `if __name__ == "__main__"`."""
    return any(isinstance(node, ast.If) and "__main__" in ast.dump(node.test) for node in tree_of(file).body)


@pytest.mark.parametrize("file", LIBRARY, ids=name_of)
def test_library_code_neither_prints_nor_swallows_errors(file):
    prints = [n for n in nodes_of(file) if isinstance(n, ast.Name) and n.id == "print"]
    assert not prints or is_command(file)
    for node in nodes_of(file):
        assert not (isinstance(node, ast.ExceptHandler) and node.type is None)


@pytest.mark.parametrize("file", TENSOR_PROGRAMS, ids=name_of)
def test_policies_never_wait_for_the_device(file):
    waits = [n for n in nodes_of(file) if isinstance(n, ast.Attribute) and n.attr in WAITS]
    assert bool(waits) == (name_of(file) in PACKS_ITS_ROWS), [f"line {node.lineno}" for node in waits]


def public_functions(node: ast.AST) -> list[ast.FunctionDef]:
    """Functions and methods that a user may call, those inside functions left out."""
    found = []
    for child in ast.iter_child_nodes(node):
        if isinstance(child, (ast.FunctionDef, ast.ClassDef)) and not child.name.startswith("_"):
            found += [child] if isinstance(child, ast.FunctionDef) else public_functions(child)
    return found


def parameters_of(function: ast.FunctionDef) -> list[str]:
    """Names of the parameters, without self and cls."""
    arguments = function.args
    every = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
    return [one.arg for one in every if one.arg not in ("self", "cls")]


@pytest.mark.parametrize("file", LIBRARY, ids=name_of)
def test_many_parameters_are_explained(file):
    """With four or more of them each stands under Args, or the docstring says where they are explained."""
    unexplained = []
    for function in public_functions(tree_of(file)):
        names, text = parameters_of(function), ast.get_docstring(function) or ""
        if len(names) < EXPLAINED_FROM or function.name in HOOKS or text.startswith("See `"):
            continue
        if "has the arguments" in text:
            continue
        described = set(re.findall(r"[\w]+", " ".join(re.findall(r"^ {4}(\w+(?:, \w+)*):", text, re.M))))
        unexplained += [f"{function.name}, line {function.lineno}: {name}" for name in names if name not in described]
    assert unexplained == []


def loops_over_rounds(tree: ast.Module) -> list[ast.AST]:
    """Loops that ask a policy for a proposal in every turn."""
    loops = [node for node in ast.walk(tree) if isinstance(node, (ast.For, ast.While))]
    return [node for node in loops if any(isinstance(n, ast.Attribute) and n.attr == "propose" for n in ast.walk(node))]


def test_there_is_one_decode_loop():
    found = {name_of(file): len(loops_over_rounds(tree_of(file))) for file in LIBRARY}
    assert {name: count for name, count in found.items() if count} == {"decoding/loop.py": 1}
    inside = [file for file in LIBRARY if file.is_relative_to(ROOT / "decoding")]
    open_ended = {name_of(file) for file in inside if any(isinstance(n, ast.While) for n in nodes_of(file))}
    assert open_ended - WAITS_FOR_OTHERS == {"decoding/loop.py"}


@pytest.mark.parametrize("file", COMMANDS, ids=name_of)
def test_a_command_is_one_short_typed_function(file):
    functions = [node for node in tree_of(file).body if isinstance(node, ast.FunctionDef)]
    assert [f.name for f in functions] == [file.stem]
    (command,) = functions
    assert command.end_lineno - command.body[0].lineno < 40  # what it says and does; options stand one a line above
    assert all(argument.annotation is not None for argument in [*command.args.args, *command.args.kwonlyargs])


def test_what_must_start_fast_imports_nothing_heavy():
    light = ", ".join(
        (
            *(
                "decoding",
                "decoding.names",
                "decoding.calls.request",
                "decoding.studies",
                "models",
                "train",
                "train.tasks",
            ),
            *(
                f"train.commands.{name}"
                for name in ("command_line", "folders", "generate", "compare", "calibrate", "study", "train")
            ),
        )
    )
    code = f"import sys, {light}; print(sorted({{'torch', 'transformers', 'lightning', 'numpy'}} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == "[]\n"


def test_files_are_named_after_concepts():
    vague = {"utils", "util", "helpers", "common", "misc", "core", "base"}
    assert not {file.stem for file in LIBRARY} & vague


def test_every_mutation_fits_the_code_and_names_tests_that_there_are():
    texts = {file: (ROOT / file).read_text(encoding="utf-8") for file in {one.file for one in MUTATIONS}}
    assert [one.name for one in MUTATIONS if texts[one.file].count(one.old) != 1] == []
    words = {word for one in MUTATIONS for word in one.tests.split() if word.startswith("tests/")}
    assert [word for word in sorted(words) if not (ROOT / word.partition("::")[0]).exists()] == []
