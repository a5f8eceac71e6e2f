"""Access to the files of a dataset.  No result depends on it, so it is kept apart from the settings of a corpus."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ponderttt.settings.corpus import CorpusConfig
from ponderttt.settings.hub import ContentsConfig
from ponderttt.settings.mapping import from_mapping, settings


@settings
class Access:
    """The keys of ``hub`` in :data:`ponderttt.settings.hub.ACCESS`."""

    accept_terms: bool
    contents: ContentsConfig


def with_access(corpus: CorpusConfig, access: Mapping[str, Any]) -> CorpusConfig:
    """Return a corpus with its access; the two keys of ``contents`` that results depend on are unchanged."""
    assert corpus.hub is not None
    given, own = from_mapping(Access, access, "access"), corpus.hub.contents
    contents = replace(given.contents, segment_files=own.segment_files, max_failures=own.max_failures)
    return replace(corpus, hub=replace(corpus.hub, accept_terms=given.accept_terms, contents=contents))
