"""How the files of a dataset are reached, which no result depends on, joined with the settings that results depend on."""

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
    """Return a corpus that can be fetched; the two keys of ``contents`` that results depend on stay as they are."""
    assert corpus.hub is not None
    given, own = from_mapping(Access, access, "access"), corpus.hub.contents
    contents = replace(given.contents, segment_files=own.segment_files, max_failures=own.max_failures)
    return replace(corpus, hub=replace(corpus.hub, accept_terms=given.accept_terms, contents=contents))
