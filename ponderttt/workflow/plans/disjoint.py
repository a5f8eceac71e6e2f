"""The check that no package is in two corpora that must be disjoint, before anything is fetched."""

from __future__ import annotations

import re
from pathlib import Path

from ponderttt.corpus.packages import select_packages
from ponderttt.errors import ConfigError
from ponderttt.settings.experiment import Experiment


def check_disjoint(experiment: Experiment) -> None:
    """Raise ConfigError if a package is in both training corpora, or in one of them and a held-out corpus.

    Only the lists are compared.  Files that repeat one of another corpus are found when shards are built.
    """
    grid = experiment.grid
    training = grid.training_corpora
    for place, train in enumerate(training):
        found = _packages(experiment, train)
        for other in training[place + 1 :]:
            for name in sorted(found.keys() & _packages(experiment, other).keys()):
                raise ConfigError(
                    f"the package {found[name]} is in both training corpora, {train} and {other}: take it out of one of them"
                )
        for corpus in grid.eval_corpora:
            for source in experiment.sources_of(corpus):
                part = "" if source == corpus else f", a part of {corpus}"
                for name in sorted(found.keys() & _packages(experiment, source).keys()):
                    raise ConfigError(
                        f"the package {found[name]} is in the training corpus {train} and in the held-out corpus {source}{part}: "
                        "take it out of one of them"
                    )


def _packages(experiment: Experiment, corpus: str) -> dict[tuple[str, str], str]:
    """Return registry and comparable name → name of each package of a corpus; none for other kinds."""
    config = experiment.corpora[corpus]
    # A list that is missing is an error of the job that reads it; others may run.
    if not config.of_packages or config.packages is None or not Path(config.packages).is_file():
        return {}
    # Registries of Python packages take these names for the same one.
    return {
        (package.registry_kind, re.sub(r"[-_.]+", "-", package.package).lower()): package.package
        for package in select_packages(config)
    }
