"""Trained policies on disk, and the policy that each becomes under a budget.

The folder of a trained policy has its arrays and a manifest.  The facts of the manifest say what it was trained on: the
backbone, the trained module, the table of features.  Loading it with others is an error.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx

from ponderttt.errors import CorruptFileError
from ponderttt.features.normalise import Normaliser
from ponderttt.features.table import FEATURES
from ponderttt.files.atomic import atomic_path, digest, write_json_lines
from ponderttt.files.manifest import MANIFEST, check_facts, read_manifest, write_manifest
from ponderttt.files.parameters import parameters, with_parameters
from ponderttt.names import MethodName
from ponderttt.policies.base import Policy
from ponderttt.policies.gumbel import SoftGate
from ponderttt.policies.learned import ActorPolicy, GatePolicy, Linear, RegressionPolicy, inputs_of
from ponderttt.policies.networks import ActorCritic, Gate

KIND, ARRAYS, LOG = "policy", "policy.safetensors", "log.jsonl"
_NETWORK = "network."


def features_digest() -> str:
    """Return the digest of the definitions of all features, in their order."""
    return digest([[feature.name, feature.definition] for feature in FEATURES])


@dataclass(frozen=True)
class Trained:
    """A trained policy.

    Attributes:
        name: the learned method as :attr:`ponderttt.names.MethodName.trained_as` gives it.
        normaliser: statistics of all features.
        network: a :class:`Linear`, a :class:`Gate` or an :class:`ActorCritic`.
        calibration: scores of chunks of training streams, for score policies.
        shares: shares of the four actions in training, for an actor.
    """

    name: MethodName
    normaliser: Normaliser
    network: Any
    calibration: tuple[float, ...] = ()
    shares: tuple[float, ...] = ()

    def policy(self, budget: float, costs: tuple[float, ...]) -> Policy:
        """Return the policy for a budget: mean cost per chunk, in the unit of ``costs``."""
        method = self.name.base
        if method == "regression":
            return RegressionPolicy(self.network, self.normaliser, self.calibration, budget, costs)
        if method == "gumbel_hard":
            return GatePolicy(self.network, self.normaliser, self.calibration, budget, costs)
        if method == "gumbel_soft":
            return SoftGate(self.network, self.normaliser, costs)
        return ActorPolicy(self.network, self.normaliser, self.shares, budget, costs)


def save_policy(
    trained: Trained, folder: Path | str, facts: Mapping[str, Any], log: list[dict[str, Any]]
) -> None:
    """Write the folder of a trained policy, its manifest last."""
    from safetensors.numpy import save_file

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MANIFEST).unlink(missing_ok=True)
    arrays = {
        "mean": trained.normaliser.mean,
        "scale": trained.normaliser.scale,
        "calibration": np.asarray(trained.calibration, np.float32),
        "shares": np.asarray(trained.shares, np.float64),
        **{f"{_NETWORK}{name}": value for name, value in _parameters(trained.network).items()},
    }
    with atomic_path(folder / ARRAYS) as temporary:
        save_file({name: np.array(value, order="C") for name, value in arrays.items()}, temporary)
    write_json_lines(folder / LOG, log)
    facts = {
        **facts,
        "policy": str(trained.name),
        "inputs": inputs_of(trained.network),
        "features_digest": features_digest(),
    }
    write_manifest(folder, KIND, {ARRAYS: None, LOG: len(log)}, facts)


def open_policy(folder: Path | str, rebuild: str, **expected: Any) -> tuple[Trained, dict[str, Any]]:
    """Return a trained policy and the facts of its manifest.

    Args:
        folder: folder of the policy, see :func:`save_policy`.
        rebuild: command that trains it, for messages.
        expected: ``model_digest`` and ``module_digest``, if known.

    Raises:
        CorruptFileError: a file is missing or damaged, or the policy was trained for something else.
    """
    from safetensors.numpy import load_file

    folder = Path(folder)
    facts = read_manifest(folder, KIND, rebuild)["facts"]
    check_facts(folder, facts, rebuild, features_digest=features_digest(), **expected)
    stored: dict[str, np.ndarray] = load_file(folder / ARRAYS)
    own = {name.removeprefix(_NETWORK): value for name, value in stored.items() if name.startswith(_NETWORK)}
    policy = MethodName.parse(facts["policy"])
    try:
        normaliser = Normaliser(stored["mean"].astype(np.float64), stored["scale"].astype(np.float64))
        network = _network(policy.base, int(facts["inputs"]), own)
        calibration = tuple(float(score) for score in stored["calibration"])
        shares = tuple(float(share) for share in stored["shares"])
    except (KeyError, ValueError) as error:
        raise CorruptFileError(
            f"{folder / ARRAYS}: not the arrays of {policy} ({error}). Rebuild it: {rebuild}"
        ) from None
    return Trained(policy, normaliser, network, calibration, shares), facts


def _parameters(network: Any) -> dict[str, np.ndarray]:
    if isinstance(network, Linear):
        return {name: np.asarray(value, np.float32) for name, value in network._asdict().items()}
    return parameters(network)


def _network(method: str, inputs: int, stored: Mapping[str, np.ndarray]) -> Any:
    if method == "regression":
        if set(stored) != set(Linear._fields) or stored["coefficients"].shape != (inputs,):
            raise ValueError("other parameters than a linear score has")
        return Linear(**{field: jnp.asarray(value) for field, value in stored.items()})
    network = (ActorCritic if method == "ppo" else Gate)(inputs, rngs=nnx.Rngs(0))
    return with_parameters(network, stored)
