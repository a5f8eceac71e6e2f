"""Parameters of every stage: the settings that a result depends on, and no others.

A stage is given nothing else of the configuration, so a key that is missing here cannot change a result.  Keys that a stage
does not depend on are at their defaults, so that editing them reruns nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ponderttt.contexts import Context
from ponderttt.corpus.packages import select_packages
from ponderttt.files.atomic import sha256_file
from ponderttt.names import FastWeightsName, MethodName
from ponderttt.settings.context import ContextConfig
from ponderttt.settings.corpus import CorpusConfig, FilterConfig
from ponderttt.settings.experiment import Experiment
from ponderttt.settings.fast_weights import FastWeightsConfig
from ponderttt.settings.hub import ACCESS, ContentsConfig
from ponderttt.settings.learning import Learning
from ponderttt.settings.mapping import as_mapping
from ponderttt.settings.rules import RulesConfig
from ponderttt.workflow.digests import records_code
from ponderttt.workflow.layout import Layout, Run, figure_names
from ponderttt.workflow.plans.needs import Needs

Parameters = dict[str, Any]


@dataclass(frozen=True)
class Plan:
    """The parameters of a study's jobs: one method for each stage, with the wildcards of its rule as arguments."""

    experiment: Experiment

    @property
    def layout(self) -> Layout:
        """The folders of the study."""
        return Layout.of(self.experiment)

    def model(self, model: str) -> Parameters:
        """Source and family of a backbone."""
        config = self.experiment.models[model]
        return {"family": config.family, "source": as_mapping(config.source)}

    def shards(self, corpus: str) -> Parameters:
        """A corpus, and its lines in the list of packages; lines of other corpora change nothing."""
        config = self.experiment.corpora[corpus]
        packages = [] if config.packages is None else [as_mapping(row) for row in select_packages(config)]
        return {"name": corpus, "corpus": as_mapping(config.of_files), "packages": packages}

    def select(self, corpus: str, part: str) -> Parameters:
        """Part of a dataset: filters that need no contents, and the opt-out list."""
        config = self._dataset(corpus)
        assert config.hub is not None
        filters, opt_out = config.filters, config.hub.opt_out
        config = replace(
            config,
            max_streams=None,
            filters=FilterConfig(
                licenses=filters.licenses, min_bytes=filters.min_bytes, max_bytes=filters.max_bytes
            ),
            hub=replace(config.hub, decontaminate=()),
        )
        files = _digests([] if opt_out is None else [opt_out])
        return {"name": corpus, "part": int(part), "corpus": as_mapping(config), "files": files}

    def contents(self, corpus: str, bucket: str) -> Parameters:
        """Bucket of a dataset: all filters and benchmarks; repositories that opted out were not selected."""
        config, given = self._dataset(corpus), self.experiment.corpora[corpus].hub
        assert config.hub is not None and given is not None
        kept = ContentsConfig(segment_files=given.contents.segment_files)
        if config.kind == "stack_v2":
            kept = replace(kept, max_failures=given.contents.max_failures)
        config = replace(config, max_streams=None, hub=replace(config.hub, opt_out=None, contents=kept))
        files = _digests(given.decontaminate)
        return {"name": corpus, "bucket": int(bucket), "corpus": as_mapping(config), "files": files}

    def merge(self, corpus: str) -> Parameters:
        """A corpus from a dataset."""
        return {"name": corpus, "corpus": as_mapping(self._dataset(corpus))}

    def chunks(self, model: str, corpus: str) -> Parameters:
        """Sizes of chunks and streams."""
        config = self.experiment.corpora[corpus]
        return {
            "chunk_size": self.experiment.chunk_size,
            "chunks_per_stream": config.chunks_per_stream,
            "span_seed": config.span_seed if config.start == "seeded" else None,
        }

    def control_chunks(self, model: str, corpus: str) -> Parameters:
        """A control corpus."""
        config = self.experiment.corpora[corpus]
        return {
            "name": corpus,
            "kind": config.kind,
            "streams": config.max_streams,
            "chunks": config.chunks_per_stream,
        }

    def mixed_chunks(self, model: str, corpus: str) -> Parameters:
        """A mixed corpus, and the corpora that it is made of."""
        config = self.experiment.corpora[corpus]
        return {
            "name": corpus,
            "language": config.language,
            "parts": {part: list(names) for part, names in config.parts.items()},
            "corpora": list(self.experiment.sources_of(corpus)),
            "streams": config.max_streams,
            "chunks": config.chunks_per_stream,
            "segment_chunks": config.segment_chunks,
            "span_seed": config.span_seed,
        }

    def hidden(self, model: str, corpus: str, context: str) -> Parameters:
        """Context and cache of a frozen pass."""
        return {
            "model": self._model(model),
            **self._context(Context.parse(context)),
            "keep_split": self.keeps_split(Context.parse(context)),
            "cache": self.experiment.cache,
            "cache_limit_bytes": self.experiment.cache_limit_bytes,
        }

    def train(self, model: str, fast_weights: str, seed: str) -> Parameters:
        """An adapter, and how it is trained."""
        return {
            **self._module(model, fast_weights, seed),
            "training": as_mapping(self.experiment.training),
        }

    def calibrate(self, model: str, fast_weights: str, seed: str) -> Parameters:
        """An adapter at 0 updates on the corpus that rules are made on: 1 per chunk, whatever the budget and the rules are."""
        corpus = self.experiment.grid.deciding_corpus
        return {
            **self._module(model, fast_weights, seed),
            **_spending(1.0, "nominal", "stream", RulesConfig()),
            "purpose": "calibrate",
            "names": {"model": model, "corpus": corpus},
        }

    def policy(self, model: str, fast_weights: str, policy: str, seed: str) -> Parameters:
        """A learned policy, with the part of ``learned`` that its method reads; only PPO imitates a rule."""
        grid, name = self.experiment.grid, MethodName.parse(policy)
        given = self.experiment.learned.of(name.variant)
        part = name.base if name.base in ("regression", "ppo") else "gate"
        shared = ("features", "leave_out", "sequences", "logits_gb", "taken_from", part)
        learned = Learning(**{key: getattr(given, key) for key in shared})
        rules = self.experiment.rules if name.base == "ppo" else RulesConfig()
        return {
            **self._module(model, fast_weights, seed),
            # A training stream has its own budget, whatever held-out streams share.
            **_spending(grid.budget, grid.budget_unit, "stream", rules),
            "policy": policy,
            "learned": as_mapping(learned),
        }

    def plain(self, corpus: str, model: str, method: str) -> Parameters:
        """A backbone without fast weights."""
        names = {"model": model, "corpus": corpus}
        return {"model": self._model(model), "method": method, "names": names}

    def arms(self, corpus: str, model: str, fast_weights: str, seed: str) -> Parameters:
        """All methods on one adapter."""
        grid = self.experiment.grid
        return {
            **self._module(model, fast_weights, seed),
            **_spending(grid.budget, grid.budget_unit, grid.budget_over, self.experiment.rules),
            "purpose": "arms",
            "names": {"model": model, "corpus": corpus},
        }

    def sequences(self, corpus: str, model: str, fast_weights: str, seed: str) -> Parameters:
        """All sequences of actions on one adapter; the budgets that any method spends."""
        grid, search = self.experiment.grid, self.experiment.sequences
        budgets = {method.budget or grid.budget for method in grid.all_methods if method.is_budgeted}
        return {
            **self._module(model, fast_weights, seed),
            "budgets": sorted(budgets),
            "budget_unit": grid.budget_unit,
            "max_nodes": search.max_nodes,
            "beam_width": search.beam_width,
            "names": {"model": model, "corpus": corpus},
        }

    def run(self, run: Run) -> Parameters:
        """A run of the table, with fast weights or without."""
        if run.fast_weights == "none":
            return self.plain(run.corpus, run.model, run.method)
        return self.arms(run.corpus, run.model, run.fast_weights, str(run.seed))

    def table(self) -> Parameters:
        """Statistics, and the kinds of control corpora."""
        kinds = {name: self.experiment.corpora[name].kind for name in self.experiment.grid.control_corpora}
        return {
            **self._reporting(),
            "control_corpora": kinds,
            "missing": list(map(str, Needs(self.experiment).missing())),
        }

    def drops(self) -> Parameters:
        """Nothing."""
        return {}

    def figures(self) -> Parameters:
        """Statistics, and the names of the figures."""
        return {**self._reporting(), "names": figure_names(self.experiment.grid.methods)}

    def effective(self) -> Parameters:
        """The whole configuration, defaults included."""
        return {"config": as_mapping(self.experiment)}

    def place(self, corpus: str | None = None) -> Parameters:
        """Folders of downloads, checkpoints and programs, and access to a dataset; no result depends on these."""
        layout = self.layout
        hub = None if corpus is None else self.experiment.corpora[corpus].hub
        access = (
            {} if hub is None else {key: value for key, value in as_mapping(hub).items() if key in ACCESS}
        )
        return {
            "downloads": layout.downloads,
            "checkpoints": layout.checkpoints,
            "programs": layout.programs,
            "access": access,
        }

    def keeps_split(self, context: Context) -> bool:
        """Return whether states at the split layer are cached: suffix adaptation reads them."""
        return any(
            name.kind == "suffix" and name.context == context
            for name in self.experiment.grid.all_fast_weights
        )

    def _context(self, context: Context) -> Parameters:
        """A context, and how it ends if it has a cache."""
        ends = self.experiment.context if context.is_cached else ContextConfig()
        return {"context": str(context), "ends": as_mapping(ends)}

    def _model(self, model: str) -> Parameters:
        return as_mapping(self.experiment.models[model])

    def _module(self, model: str, fast_weights: str, seed: str) -> Parameters:
        name, given = FastWeightsName.parse(fast_weights), self.experiment.fast_weights
        own = getattr(given.variants[name.variant] if name.variant else given, name.kind)
        return {
            "model": self._model(model),
            "fast_weights": fast_weights,
            "config": as_mapping(FastWeightsConfig(**{name.kind: own})),
            "seed": int(seed),
        }

    def _dataset(self, corpus: str) -> CorpusConfig:
        """A corpus from a dataset, without the keys that its files do not depend on."""
        config = self.experiment.corpora[corpus]
        assert config.hub is not None
        hub = replace(config.hub, accept_terms=False, contents=ContentsConfig())
        return replace(config.of_files, hub=hub)

    def _reporting(self) -> Parameters:
        statistics = as_mapping(self.experiment.statistics)
        return {"statistics": statistics, "records_code": records_code()}


def _spending(budget: float, unit: str, over: str, rules: RulesConfig) -> Parameters:
    return {"budget": budget, "budget_unit": unit, "budget_over": over, "rules": as_mapping(rules)}


def _digests(paths: Iterable[str]) -> list[str]:
    """sha256 of files that a corpus names: an edited list reruns what reads it."""
    found = [Path(path).expanduser() for path in paths]
    return [sha256_file(path) if path.is_file() else "missing" for path in found]
