"""PPO with a PID-Lagrangian budget on training streams (Schulman et al. 2017, arXiv:1707.06347; Stooke et al. 2020).

An iteration rolls the policy out, gets λ from the controller for the mean cost that was spent, and improves the policy on
(A_reward − λ·A_cost) / (1 + λ).  The budget acts through λ only: the policy may overspend while it learns.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jaxtyping import Array, Float, Int, Key

from ponderttt.actions import Action
from ponderttt.features.normalise import Normaliser, apply
from ponderttt.files.checkpoints import Checkpoints
from ponderttt.policies.base import Policy
from ponderttt.policies.networks import ActorCritic
from ponderttt.seeds import named_key
from ponderttt.settings.ppo import PPOConfig
from ponderttt.training.ppo import pid
from ponderttt.training.ppo.advantages import gae, normalise
from ponderttt.training.ppo.clone import clone
from ponderttt.training.ppo.losses import combined_advantage
from ponderttt.training.ppo.update import Batch, log_probs, optimiser, update
from ponderttt.training.rollouts import Choice, Rollout, demonstrate, rollout
from ponderttt.training.world import World

Log = list[dict[str, Any]]
#: Steps and learning rate of cloning a rule: enough to copy it, too few to memorise the demonstrations.
_CLONE_STEPS, _CLONE_RATE = 100, 1e-3


class PPOState(NamedTuple):
    """Training state: all that changes between iterations."""

    params: Any
    optimiser: optax.OptState
    pid: pid.PidState
    #: Fraction of each action, averaged over the last iterations.
    shares: Float[Array, " A"]


def train_ppo(
    world: World,
    normaliser: Normaliser,
    inputs: int,
    config: PPOConfig,
    budget: float,
    costs: Sequence[float],
    seed: int,
    checkpoints: Checkpoints,
    teacher: Policy | None = None,
    demonstrations: int = 1,
    progress: Callable[[int, int, str], None] = lambda step, total, what: None,
) -> tuple[ActorCritic, tuple[float, ...], Log]:
    """Train a policy for one budget.

    Args:
        world: training streams with one trained adapter.
        normaliser: normalises the features.
        inputs: n, the number of features that the policy sees.
        config: see :class:`PPOConfig`.
        budget: mean cost per chunk, in the unit of ``costs``.
        costs: cost of each of the four actions.
        seed: seed of the initialisation, the order of streams and all samples.
        checkpoints: an entered :class:`Checkpoints`; training resumes from its newest one.
        teacher: a rule to clone first; None starts from an untrained network.
        demonstrations: number of times that the teacher acts on each stream.
        progress: called with (iterations done, total, a summary of the last one).

    Returns:
        The network, the fractions of its actions over the last iterations, and the log, one mapping per iteration.
    """
    graph, params = nnx.split(
        ActorCritic(inputs, rngs=nnx.Rngs(params=named_key(seed, "ppo", "initialisation")))
    )
    start = optimiser(config, config.learning_rate).init(params)
    state = PPOState(params, start, pid.start(config.pid), jnp.full(len(Action), 1 / len(Action)))
    done = 0
    log: Log = []
    if (found := checkpoints.restore(state)) is not None:
        done, state, log = found
    elif teacher is not None:
        shown = [demonstrate(world, teacher, budget, costs, seed, number) for number in range(demonstrations)]
        state = state._replace(params=_taught(shown, normaliser, inputs, graph, params, seed))
    for iteration in range(done, config.iterations):
        state, line = _iterate(
            world, normaliser, inputs, graph, state, config, budget, costs, seed, iteration
        )
        log.append(line)
        progress(iteration + 1, config.iterations, f"cost {line['cost']:.2f}, reward {line['reward']:.3f}")
        if iteration + 1 == config.iterations or (iteration + 1) % config.checkpoint_every == 0:
            checkpoints.save(iteration + 1, state, log)
    return nnx.merge(graph, state.params), tuple(float(share) for share in state.shares), log


def _iterate(
    world: World,
    normaliser: Normaliser,
    inputs: int,
    graph: Any,
    state: PPOState,
    config: PPOConfig,
    budget: float,
    costs: Sequence[float],
    seed: int,
    iteration: int,
) -> tuple[PPOState, dict[str, float]]:
    begin, before = time.perf_counter(), world.seconds
    limit = config.budget_at(iteration, budget)
    keys = jax.random.split(named_key(seed, "ppo", "draws", iteration), config.rollout + 1)

    def choose(features: Float[np.ndarray, "E F"], step: int) -> Choice:
        seen = apply(normaliser, jnp.asarray(features, jnp.float32))[:, :inputs]
        return Choice(*(np.asarray(part) for part in _act(graph, state.params, seen, keys[step])))

    order = np.random.default_rng([seed, iteration]).permutation(len(world.streams)).tolist()
    found = rollout(
        world,
        choose,
        order,
        steps=config.rollout,
        environments=config.environments,
        budget=limit,
        costs=costs,
    )
    rolled = time.perf_counter()
    cost = float(found.cost.mean())
    controller, terms = pid.step(config.pid, state.pid, cost / limit)
    batch = _batch(found, normaliser, inputs, config, terms.lambda_, limit)
    params, opt_state, stats = update(
        graph,
        state.params,
        state.optimiser,
        batch,
        named_key(seed, "ppo", "shuffle", iteration),
        config,
        config.entropy_weight_at(iteration),
        config.learning_rate_at(iteration),
    )
    jax.block_until_ready(params)
    shares = np.bincount(found.action.ravel(), minlength=len(Action)) / found.action.size
    kept = 0.0 if iteration == 0 else 0.8
    averaged = kept * state.shares + (1 - kept) * jnp.asarray(shares, jnp.float32)
    seconds = time.perf_counter() - begin
    line = {
        "iteration": iteration + 1,
        "reward": float(found.reward.mean()),
        "cost": cost,
        "limit": limit,
        "lambda": float(terms.lambda_),
        "p": float(terms.p),
        "i": float(terms.i),
        "d": float(terms.d),
        **{f"share_{action.name.lower()}": float(shares[action]) for action in Action},
        **{name: float(value) for name, value in stats._asdict().items()},
        "answers": len(world),
        # ``module_seconds`` is the adapter's part: scoring, adapting and the projection that both share.
        "seconds": seconds,
        "module_seconds": world.seconds - before,
        "update_seconds": time.perf_counter() - rolled,
    }
    return PPOState(params, opt_state, controller, averaged), line


def _batch(
    found: Rollout,
    normaliser: Normaliser,
    inputs: int,
    config: PPOConfig,
    lambda_: Float[Array, ""],
    limit: float,
) -> Batch:
    """Build the batch of an update; advantages of reward and cost are normalised separately.

    Costs are in multiples of the limit, so that both returns are small.
    """
    advantages = {}
    for name, gains, values, last in (
        ("reward", found.reward, found.value, found.last.value),
        ("cost", found.cost / limit, found.cost_value, found.last.cost_value),
    ):
        seen, expected, after = (jnp.asarray(part, jnp.float32) for part in (gains, values, last))
        ends = jnp.asarray(found.end)
        advantages[name] = gae(seen, expected, after, ends, config.gamma, config.gae_lambda)
    combined = combined_advantage(normalise(advantages["reward"]), normalise(advantages["cost"]), lambda_)
    value, cost_value = (jnp.asarray(part, jnp.float32) for part in (found.value, found.cost_value))
    return Batch(
        features=apply(normaliser, jnp.asarray(found.features, jnp.float32))[..., :inputs],
        actions=jnp.asarray(found.action, jnp.int32),
        allowed=jnp.ones((*found.action.shape, len(Action)), bool),
        log_prob=jnp.asarray(found.log_prob, jnp.float32),
        advantage=combined,
        value=value,
        value_target=value + advantages["reward"],
        cost_value=cost_value,
        cost_value_target=cost_value + advantages["cost"],
    )


def _taught(
    shown: Sequence[tuple[Float[np.ndarray, "M F"], Int[np.ndarray, " M"]]],
    normaliser: Normaliser,
    inputs: int,
    graph: Any,
    params: Any,
    seed: int,
) -> Any:
    features, actions = (np.concatenate(part) for part in zip(*shown, strict=True))
    seen = apply(normaliser, jnp.asarray(features, jnp.float32))[:, :inputs]
    allowed = jnp.ones((len(actions), len(Action)), bool)
    key = named_key(seed, "ppo", "clone")
    return clone(
        graph, params, seen, allowed, jnp.asarray(actions, jnp.int32), key, _CLONE_STEPS, _CLONE_RATE
    )


@jax.jit
def _draw(logits: Float[Array, "E A"], key: Key[Array, ""]) -> Int[Array, " E"]:
    return jax.random.categorical(key, logits)


def _act(graph: Any, params: Any, features: Float[Array, "E n"], key: Key[Array, ""]) -> tuple[Array, ...]:
    """Sample actions; return them with their log-probabilities, as an update computes them, and both values."""
    heads = _heads(graph, params, features)
    actions = _draw(heads.logits, key)
    allowed = jnp.ones(heads.logits.shape, bool)
    return actions, _log_probs(graph, params, features, allowed, actions), heads.value, heads.cost_value


_log_probs = jax.jit(log_probs, static_argnums=0)
_heads = jax.jit(lambda graph, params, features: nnx.merge(graph, params)(features), static_argnums=0)
