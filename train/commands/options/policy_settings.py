"""The settings of every policy, with defaults and meaning, read from the source: nothing heavy is imported for a list."""

from __future__ import annotations

import ast
import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from decoding.names import POLICIES, NamedPolicy, find_policy, nearest
from models.complaints import shown

WIDTH = 100  # characters of a line for people


@dataclass(frozen=True)
class Setting:
    """One setting of a policy.

    Attributes:
        name: as it is typed.
        kind: its type, or its values with | between them.
        default: as Python writes it; "" where it must be given.
        meaning: the policy's docstring on it, with unit and range.
    """

    name: str
    kind: str
    default: str
    meaning: str


@dataclass(frozen=True)
class Description:
    """A policy as its source describes it.

    Attributes:
        summary: the first sentence of its docstring.
        settings: those that may be given, in the order of its fields.
    """

    summary: str
    settings: Mapping[str, Setting]


@cache
def describe(policy: str) -> Description:
    """What the policy of a name, or of one's own at `package.module:Class`, is and may be given."""
    named = _named(policy)
    module, _, name = named.home.partition(":")
    found = _class(module, name)
    settings = {s.name: s for s in found.settings.values() if s.name not in {*named.fixed, "head"}}
    return Description(found.summary, settings)


def policy_summary(name: str) -> Iterator[str]:
    """What the policy of a name commits in a round, and which settings it has, for people."""
    found, named = describe(name), _named(name)
    yield from entry(name, found.summary)
    settings = ", ".join(f"{one} (the dial)" if one == named.dial else one for one in found.settings)
    fixed = ", ".join(f"{one} is {value}" for one, value in named.fixed.items())
    for title, text in (("Settings", settings), ("Fixed", fixed)):
        if text:
            yield from entry("", f"{title}: {text}.")


def policy_lines(name: str) -> Iterator[str]:
    """The policy of a name and its settings, for people."""
    found, dial = describe(name), _named(name).dial
    yield from entry(name, found.summary)
    for setting in found.settings.values():
        yield from entry(f"    --{setting.name}", said(setting) + " The dial." * (setting.name == dial))


def said(setting: Setting) -> str:
    """Type, default and meaning of a setting."""
    if setting.kind == "Policy":
        return f"name of a policy, default what the other settings mean, else threshold: {setting.meaning}"
    default = setting.default.strip("'") or "must be given"
    return f"{setting.kind}, default {default}: {setting.meaning}"


def entry(name: str, text: str) -> list[str]:
    """A name and what is said of it beside it, in lines of WIDTH characters."""
    return textwrap.wrap(f"{name:28} {text}", WIDTH, subsequent_indent=" " * 29)


@cache
def setting_names(own: str | None = None) -> frozenset[str]:
    """Every setting that some policy has; `own` names a policy of one's own besides."""
    policies = [*POLICIES, *([] if own is None else [own])]
    return frozenset(name for policy in policies for name in describe(policy).settings)


def check_settings(policy: str, settings: Mapping[str, object]) -> None:
    """Refuse settings that a policy does not have.

    Raises:
        ValueError: in one sentence, with the nearest name.
    """
    free = describe(policy).settings
    if any("Policy" in setting.kind for setting in free.values()):
        return  # it passes settings on to a rule, which judges them when it is made
    unknown = sorted(settings.keys() - free.keys())
    if unknown:
        rule = f"be among {', '.join(sorted(free))}" if free else "be left out"
        raise ValueError(
            f"settings of policy {policy} must {rule}, got {', '.join(unknown)}{nearest(unknown[0], free)}"
        )


def _named(policy: str) -> NamedPolicy:
    """The policy of a name; one of one's own is not imported."""
    return NamedPolicy(policy) if ":" in policy else find_policy(policy)


@cache
def _class(module: str, name: str) -> Description:
    """A class of a module: its own fields after those of its bases, each with the nearest docstring that explains it."""
    tree = _source(module)
    node = next((n for n in tree.body if isinstance(n, ast.ClassDef) and n.name == name), None)
    if node is None:
        raise ValueError(f"policy must be a class of {module}, got {shown(name)}")
    homes = {
        alias.asname or alias.name: str(n.module)
        for n in tree.body
        if isinstance(n, ast.ImportFrom)
        for alias in n.names
    }
    local = {n.name for n in tree.body if isinstance(n, ast.ClassDef)}
    settings: dict[str, Setting] = {}
    for base in (b.id for b in node.bases if isinstance(b, ast.Name)):
        if base in local or homes.get(base, "").startswith("decoding"):
            settings |= _class(module if base in local else homes[base], base).settings
    doc = ast.get_docstring(node) or ""
    said, values = arguments_of(doc), _literals(tree)
    for field in (n for n in node.body if isinstance(n, ast.AnnAssign) and isinstance(n.target, ast.Name)):
        setting = _setting(field, said, values, settings)
        if setting is not None:
            settings[setting.name] = setting
    kept = {n: replace(s, meaning=said.get(n, s.meaning)) for n, s in settings.items()}
    return Description(" ".join(doc.partition("\n\n")[0].split()), kept)


def _setting(
    field: ast.AnnAssign, said: Mapping[str, str], values: Mapping[str, str], inherited: Mapping[str, Setting]
) -> Setting | None:
    """A field as a setting; None for a class variable or a part that cannot be typed on a command line."""
    name = field.target.id if isinstance(field.target, ast.Name) else ""
    kind, default = ast.unparse(field.annotation), "" if field.value is None else ast.unparse(field.value)
    if kind.startswith("ClassVar") or default.startswith("field("):
        return None
    kind = " | ".join(values.get(part, part) for part in kind.split(" | "))
    before = inherited.get(name)
    return Setting(name, kind, default, said.get(name, before.meaning if before else ""))


def _literals(tree: ast.Module) -> dict[str, str]:
    """Names of Literal types -> their values, with | between them."""
    found = {}
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            text = ast.unparse(node.value)
            if text.startswith("Literal["):
                found[node.targets[0].id] = " | ".join(re.findall(r"'([^']*)'", text))
    return found


def arguments_of(doc: str) -> dict[str, str]:
    """Name -> what the `Args` section of a docstring says of it."""
    section = re.search(r"^Args:\n((?:[ ]+.*\n?|\n)*)", doc, re.M)
    found: dict[str, str] = {}
    names: Sequence[str] = ()
    for line in (section[1] if section else "").splitlines():
        start = re.match(r"    ([a-z_0-9][a-z_0-9, ]*): (.*)", line)
        if start:
            names = start[1].split(", ")
            found |= dict.fromkeys(names, start[2])
        elif line.strip():
            found |= {name: f"{found[name]} {line.strip()}" for name in names}
    return found


@cache
def _source(module: str) -> ast.Module:
    try:
        spec = find_spec(module)  # imports the packages above it alone, which are light
    except (ImportError, ValueError):
        spec = None
    if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
        raise ValueError(f"policy must lie in a module that is there, got {module}")
    return ast.parse(Path(spec.origin).read_text(encoding="utf-8"))
