"""Run the methods of one trained module side by side over streams, oracles included."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ponderttt.actions import Action
from ponderttt.fast_weights.base import FastWeights
from ponderttt.files.atomic import atomic_path
from ponderttt.files.checkpoints import Checkpoints
from ponderttt.frozen.chunks import FrozenChunks
from ponderttt.loop.arm import Arm
from ponderttt.loop.controls import donor_of
from ponderttt.loop.corpus_budget import chunks_per_decision, share_budget
from ponderttt.loop.methods import Spending, arm_of
from ponderttt.loop.oracles import exhaustive_oracle, greedy_oracle
from ponderttt.loop.page import Group
from ponderttt.loop.programs import ModulePrograms
from ponderttt.loop.stream import run_streams
from ponderttt.names import MethodName
from ponderttt.policies.budget import budget_tables
from ponderttt.policies.calibration import Calibration
from ponderttt.policies.rules import Schedule
from ponderttt.policies.sequences import check_room
from ponderttt.policies.trained import Trained
from ponderttt.records.step import Step
from ponderttt.records.steps import steps_from_json, steps_to_json
from ponderttt.settings.rules import RulesConfig


@dataclass(frozen=True)
class Budget:
    """Mean cost per chunk, in multiples of SKIP.

    Attributes:
        mean: the mean cost.
        unit: nominal costs or counted FLOPs.
        over: what the mean is over: each stream, or all streams of a corpus, at one price per unit of cost.
    """

    mean: float
    unit: Literal["nominal", "flops"] = "nominal"
    over: Literal["stream", "corpus"] = "stream"


def run_arms(
    module: FastWeights,
    streams: Sequence[FrozenChunks],
    unembedding: Any,
    methods: Sequence[MethodName],
    *,
    budget: Budget,
    seed: int,
    suffix: Any = None,
    rules: RulesConfig = RulesConfig(),  # noqa: B008 (frozen)
    calibration: Calibration | None = None,
    learned: Mapping[MethodName, Trained] | None = None,
    streams_per_group: int = 1,
    checkpoints: Checkpoints | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, list[Step]]:
    """Run methods over every stream with one trained module.

    Finished groups are kept with the checkpoints, so an interrupted job does not score them again.

    Args:
        module: fast weights with trained slow weights.
        streams: streams of one corpus.
        unembedding: the frozen vocabulary projection [V, D], as the model keeps it.
        methods: methods of the table.
        budget: budget of methods that name none.
        seed: seed of random decisions and shuffles.
        suffix: frozen weights of the blocks after the split layer, for modules that read from there.
        rules: settings of the rules.
        calibration: signals of training chunks, for signal rules.
        learned: trained policies, for learned methods.
        streams_per_group: how many streams advance together.
        checkpoints: where finished groups are kept.
        progress: called with (streams done, streams in total).

    Returns:
        The steps of each method, by the text of its name.

    Raises:
        PonderTTTError: a budget leaves nothing to decide, or cannot be met.
        ValueError: a budget over the corpus, and streams that advance together or an oracle, which spends by stream.
    """
    shares = budget.over == "corpus"
    if shares and (streams_per_group > 1 or any(method.is_oracle for method in methods)):
        raise ValueError("a budget over the corpus needs streams one after the other, and no oracle")
    programs = ModulePrograms(module)
    costs = action_costs(programs, streams, unembedding, suffix, budget.unit)
    longest = max(len(stream.hidden) for stream in streams)
    for given in dict.fromkeys(method.budget or budget.mean for method in methods if method.is_budgeted):
        warning = None if shares else check_room(costs, given, longest)
        if warning is not None:
            print(f"note: {warning}")
    per_decision = chunks_per_decision(streams) if shares else 1.0
    spending = Spending(budget.mean, costs, rules, calibration, learned or {}, per_decision)
    arms = [arm_of(m, programs, spending, seed) for m in methods if not m.is_oracle]
    oracles = [m for m in methods if m.is_oracle]
    wants_donors = any(arm.lesson == "other_stream" for arm in arms)
    steps: dict[str, list[Step]] = {str(method): [] for method in methods}
    for begin in range(0, len(streams), streams_per_group):
        members = range(begin, min(begin + streams_per_group, len(streams)))
        kept = checkpoints.folder / f"group-{begin:05d}.json" if checkpoints else None
        if kept and kept.exists():
            finished = steps_from_json(kept.read_text(encoding="utf-8"))
        else:
            donors = [donor_of(streams, b) for b in members] if wants_donors else []
            if shares:
                for arm in arms:
                    share_budget(arm, streams, steps[arm.name])
            group = Group([streams[b] for b in members], unembedding, suffix, donors)
            finished = _run_group(arms, oracles, group, programs, spending, seed)
            if kept:
                with atomic_path(kept) as temporary:
                    temporary.write_text(steps_to_json(finished), encoding="utf-8")
        for method in steps:
            steps[method].extend(finished[method])
        progress(members.stop, len(streams))
    return steps


def action_costs(
    programs: ModulePrograms,
    streams: Sequence[FrozenChunks],
    unembedding: Any,
    suffix: Any,
    unit: Literal["nominal", "flops"],
) -> tuple[float, ...]:
    """Return the cost of each action in multiples of SKIP: nominal, or counted FLOPs of all that runs for a chunk."""
    if unit == "nominal":
        return tuple(action.nominal_cost for action in Action)
    page = Group(streams[:1], unembedding, suffix).page(0)
    own = programs.action_flops(page.chunk(programs), page.readout(programs))
    frozen = page.frozen_cost(programs, None, 0).flops
    return tuple((frozen + own[action]) / (frozen + own[Action.SKIP]) for action in Action)


def _run_group(
    arms: Sequence[Arm],
    oracles: Sequence[MethodName],
    group: Group,
    programs: ModulePrograms,
    spending: Spending,
    seed: int,
) -> dict[str, list[Step]]:
    """Run a group; oracles search one stream at a time and share its pages with the arms if it is the whole group."""
    if len(group.streams) == 1:
        replays, look_ahead = _search(oracles, group, programs, spending, seed)
        steps = run_streams([*arms, *replays], group)
        return {name: _with_look_ahead(rows, look_ahead.get(name)) for name, rows in steps.items()}
    steps = run_streams(arms, group)
    steps |= {str(oracle): [] for oracle in oracles}
    for stream in group.streams:
        alone = Group([stream], group.unembedding, group.suffix)
        replays, look_ahead = _search(oracles, alone, programs, spending, seed)
        for name, rows in run_streams(replays, alone).items():
            steps[name] += _with_look_ahead(rows, look_ahead[name])
    return steps


LookAhead = Sequence[tuple[float, ...] | None]


def _search(
    oracles: Sequence[MethodName], group: Group, programs: ModulePrograms, spending: Spending, seed: int
) -> tuple[list[Arm], dict[str, LookAhead]]:
    arms: list[Arm] = []
    look_ahead: dict[str, LookAhead] = {}
    reader = arm_of(MethodName("skip"), programs, spending, seed)
    for method in oracles:
        search = {"greedy_oracle": greedy_oracle, "exhaustive_oracle": exhaustive_oracle}[method.base]
        found = search(reader, group, budget_tables(spending.costs, method.budget or spending.budget))
        policy = Schedule(found.actions, costs=spending.costs)
        arms.append(arm_of(method, programs, spending, seed, policy))
        look_ahead[str(method)] = found.look_ahead
    return arms, look_ahead


def _with_look_ahead(steps: Sequence[Step], look_ahead: LookAhead | None) -> list[Step]:
    if look_ahead is None:
        return list(steps)
    return [step._replace(look_ahead=gains) for step, gains in zip(steps, look_ahead, strict=True)]
