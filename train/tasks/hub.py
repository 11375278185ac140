"""Where a benchmark's examples are on the hub, and how they are read from there."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

HUB = "hub"  # in place of the name of a file
Loader = Callable[..., Iterable[Mapping[str, object]]]


@dataclass(frozen=True)
class Hub:
    """A split of a dataset on the hub.

    Args:
        dataset: `owner/name`.
        split: the one that is reported on.
        config: of a dataset with several.
    """

    dataset: str
    split: str = "test"
    config: str | None = None

    def rows(self, loader: Loader | None = None) -> Iterable[Mapping[str, object]]:
        """The records of the split.

        Args:
            loader: called as `loader(dataset, config, split=split)`; by default `datasets.load_dataset`.

        Raises:
            ValueError: in one sentence, if the dataset cannot be loaded.
        """
        try:
            return (loader or _load_dataset)(self.dataset, self.config, split=self.split)
        except Exception as error:  # whatever the network, the hub or its cache raises
            why = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise ValueError(
                f"dataset {self.dataset} must be on the hub or in its cache (without a network give a file of prompts), "
                f"got {type(error).__name__}: {why}"
            ) from error


def _load_dataset(dataset: str, config: str | None, *, split: str) -> Any:
    from datasets import load_dataset

    return load_dataset(dataset, config, split=split)
