"""How people type options: settings of a policy beside those of the command, one option several times, a name slightly wrong."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Callable, Iterator, Sequence, Set
from itertools import zip_longest

import yaml

from decoding.calls.request import OF_THE_MODEL, OPTIONS
from decoding.calls.spellings import ALIASES, RULES, WITHOUT_EFFECT
from decoding.names import POLICIES, nearest
from train.commands.options.policy_settings import policy_lines, setting_names

PARSERS_OWN = ("help", "config", "print_config")
NOT_TYPED = {"tokenizer", "history", *OF_THE_MODEL} - {"chat", "mask_id", "eos_id"}
SETTINGS = "settings"  # the parameter that takes the settings of a policy
TEXTS = "list[str]"  # annotation of an option that may be given several times


def spread(function: Callable[..., object], arguments: Sequence[str]) -> list[str]:
    """The command line in the words of its parser.

    `--threshold 0.9` of a command that takes a policy becomes `--settings.threshold=0.9`, `--a b --a c` of an option that takes a
    list becomes `--a=["b", "c"]`, and `--a-name` becomes `--a_name`.

    Raises:
        ValueError: for an option that there is not, with the nearest name.
    """
    parameters = inspect.signature(function).parameters
    repeated = several(function)
    settings = typed_settings(_policy(arguments)) if SETTINGS in parameters and "policy" in parameters else frozenset()
    _require_keys_once(arguments, settings)
    lists: dict[str, list[str]] = {}
    written: list[str] = []
    for name, value in options_of(arguments):
        own = name.partition(".")[0].removesuffix("+")
        if name in repeated and value is not None:
            lists.setdefault(name, []).append(value)
        elif not name:
            written.append(str(value))
        elif own in parameters or own in PARSERS_OWN:
            written += [f"--{name}"] if value is None else [f"--{name}", value]
        elif own in settings:
            written.append(f"--{SETTINGS}.{name}={'true' if value is None else value}")
        else:
            known = nearest(own, {*parameters, *settings})
            raise ValueError(f"option must be one that --help or --list settings names, got --{name}{known}")
    return [*written, *(f"--{name}={_for_yaml(values)}" for name, values in lists.items())]


def _for_yaml(values: list[str]) -> str:
    """Texts as JSON that YAML reads: letters above U+FFFF as they are, for which JSON has pairs of escapes."""
    text = json.dumps(values, ensure_ascii=False)
    return re.sub("[\x7f-\uffff]", lambda found: f"\\u{ord(found[0]):04x}", text)


def _require_keys_once(arguments: Sequence[str], settings: Set[str]) -> None:
    """Refuse a key that an option's object holds twice, and a setting typed beside one of that name in `settings`."""
    typed = [name for name, _ in options_of(arguments) if name in settings]
    for name, value in options_of(arguments):
        keys = [*_keys_of(value), *(typed if name == SETTINGS else [])]
        twice = next((key for key in keys if keys.count(key) > 1), None)
        if twice is not None:
            raise ValueError(f"{twice} must be given once, got it twice with {name}")


def _keys_of(value: str | None) -> list[str]:
    """The keys of an object on the command line, JSON or YAML; none of anything else."""
    if value is None or not value.lstrip().startswith("{"):
        return []
    try:
        root = yaml.compose(value, Loader=yaml.SafeLoader)
    except (yaml.YAMLError, RecursionError):
        return []
    found = root.value if isinstance(root, yaml.MappingNode) else []
    return [key.value for key, _ in found if isinstance(key, yaml.ScalarNode)]


def several(function: Callable[..., object]) -> frozenset[str]:
    """The options of a command that may be given several times."""
    parameters = inspect.signature(function).parameters.items()
    return frozenset(name for name, one in parameters if TEXTS in inspect.formatannotation(one.annotation))


def options_of(arguments: Sequence[str]) -> Iterator[tuple[str, str | None]]:
    """Name and value of every option, underscores for hyphens; "" and the argument itself for one that is no option's value."""
    taken = False
    for this, following in zip_longest(arguments, arguments[1:]):
        if taken:
            taken = False
        elif not this.startswith("--") or len(this) == 2:
            yield "", this
        elif "=" in this:
            name, _, value = this[2:].partition("=")
            yield name.replace("-", "_"), value
        else:
            taken = following is not None and not following.startswith("--")
            yield this[2:].replace("-", "_"), following if taken else None


def typed_settings(policy: str | None) -> frozenset[str]:
    """What may be typed as an option beside the command's own: settings of the policies, and the field's spellings of them.

    Args:
        policy: a policy of one's own, `package.module:Class`, has its own settings besides.
    """
    of_the_field = {*ALIASES, *RULES, *OPTIONS, *WITHOUT_EFFECT, "dual_cache"} - NOT_TYPED
    return setting_names(policy if policy is not None and ":" in policy else None) | of_the_field


def settings_help(function: Callable[..., object], arguments: Sequence[str]) -> str:
    """The settings of the policy that a command line names, or of all, for its help; "" where no help is asked for."""
    parameters = inspect.signature(function).parameters
    if not {"-h", "--help"} & {*arguments} or SETTINGS not in parameters or "policy" not in parameters:
        return ""
    policy = _policy(arguments)
    lines = [line for name in ([policy] if policy else POLICIES) for line in policy_lines(name)]
    return "\n".join((f"settings of policy {policy or 'NAME, as options of the command'}:", *lines))


def _policy(arguments: Sequence[str]) -> str | None:
    return next((value for name, value in options_of(arguments) if name == "policy"), None)
