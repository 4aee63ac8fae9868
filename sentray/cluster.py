"""The Ray cluster a run works on: `connect` to it, or to one of this machine, and `plan` workers on its `Resources`."""

import logging
import math
import os
import re
import signal
import socket
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, model_serializer, model_validator

from sentray.console import count
from sentray.errors import SentrayError, first_line

# Ray reads this when it is imported: "0" makes a local cluster use the loopback address on Linux too.
_LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}

show_workers: ContextVar[bool] = ContextVar("show_workers", default=True)
"""Whether what Ray's processes print comes to this one, whose output a command line may send into a log."""

_ROUNDING = 1e-6
"""Thirds of a CPU add up."""
_LISTENER_SECONDS = 10
_NO_NODE_HERE = "No node info found"
"""Part of Ray's message where it finds no raylet on this machine."""
_ANSWER_SECONDS = 60.0
"""How long a node may take to start a process and look for a file; the run does not wait longer for a busy one."""


class WorkerRange(BaseModel):
    """How many workers a run takes: a number, or any from `min` to `max`, written `1:4`."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    min: int
    max: int

    @model_validator(mode="before")
    @classmethod
    def _parsed(cls, value: Any) -> Any:
        if not isinstance(value, int | str):
            return value
        found = re.fullmatch(r"([0-9]{1,6})(?::([0-9]{1,6}))?", str(value))
        low, high = (int(found[1]), int(found[2] or found[1])) if found else (0, 0)
        if not 1 <= low <= high:
            raise ValueError("a number of workers from 1 on, or the least and the most of them, such as 1:4")
        return {"min": low, "max": high}

    @model_serializer
    def _written(self) -> int | str:
        return self.max if self.fixed else f"{self.min}:{self.max}"

    def __str__(self) -> str:
        return str(self._written())

    @property
    def fixed(self) -> bool:
        """Whether it is one number."""
        return self.min == self.max


@dataclass(frozen=True)
class Resources:
    """What a cluster has: processors and GPUs, all of them and those free now, and its nodes' shares.

    `nodes` holds (CPUs, GPUs) of each living node. `max_cpus` and `max_gpus` are what an autoscaling
    cluster may grow to; they equal the totals where the cluster has a fixed size.
    """

    cpus: float
    gpus: float
    free_cpus: float
    free_gpus: float
    max_cpus: float
    max_gpus: float
    nodes: tuple[tuple[float, float], ...]

    @property
    def grows(self) -> bool:
        """Whether the autoscaler may add nodes."""
        return self.max_cpus > self.cpus or self.max_gpus > self.gpus


@dataclass(frozen=True)
class Plan:
    """Workers that a cluster can hold, CPUs and GPUs of each, and the CPUs they leave to read with."""

    workers: int
    cpus_each: float
    gpus_each: float
    cpus_left: float

    def describe(self) -> str:
        """One line for the plan that a run prints before it starts."""
        gpus = f", {count(self.gpus_each, 'GPU')} each" if self.gpus_each else ""
        return (
            f"{count(self.workers, 'worker')}, {count(self.cpus_each, 'CPU')} each{gpus}; "
            f"{count(self.cpus_left, 'CPU')} left"
        )


@contextmanager
def connect(address: str | None = None, *, cpus: int | None = None, verbose: bool = False) -> Iterator[None]:
    """Connect this process to Ray for the length of the block.

    `address` or the variable RAY_ADDRESS reaches a running cluster. Without either, a local one is started on
    the loopback address with `cpus` CPUs (all of the machine's where not given) and ended with the block. A
    process that is already connected stays so, and the connection outlives the block.

    Args:
        address: `host:port` of the head, or `auto` for the cluster running on this machine.
        cpus: CPUs of the local cluster; without effect on a running one.
        verbose: let Ray report what it does.

    Raises:
        SentrayError: no cluster answers at the address, or it refuses this client.
    """
    address = address or os.environ.get("RAY_ADDRESS") or None
    if "ray" in sys.modules and sys.modules["ray"].is_initialized():
        yield
        return
    with environment({} if address else _LOOPBACK):
        import ray

        try:
            with keep_handler(signal.SIGTERM):
                _start(ray, address, cpus, verbose)
            yield
        finally:
            ray.shutdown()


@contextmanager
def keep_handler(number: signal.Signals) -> Iterator[None]:
    """Restore this process's own handler of a signal, where Ray replaces it within the block."""
    handler = signal.getsignal(number)
    try:
        yield
    finally:
        if handler is not None and threading.current_thread() is threading.main_thread():
            signal.signal(number, handler)


def _start(ray: Any, address: str | None, cpus: int | None, verbose: bool) -> None:
    arguments: dict[str, Any] = {
        "logging_level": logging.INFO if verbose else logging.ERROR,
        "log_to_driver": verbose or show_workers.get(),
    }
    if address is None:
        # What _LOOPBACK says, where Ray was imported before and does not read it any more.
        constants = ray._private.ray_constants
        before, constants.ENABLE_RAY_CLUSTER = constants.ENABLE_RAY_CLUSTER, False
        try:
            ray.init("local", num_cpus=cpus, include_dashboard=False, **arguments)
        except Exception as error:
            if "timed out during startup" not in str(error):
                raise
            raise SentrayError(
                "Ray did not start on this machine in half a minute; is it busy with other work? Give the command again"
            ) from error
        finally:
            constants.ENABLE_RAY_CLUSTER = before
        return
    host, _, port = address.rpartition(":")
    if address != "auto" and ("://" in address or not host or not port.isdecimal()):
        raise SentrayError(
            f"{address!r} is not the address of a Ray head, which is HOST:PORT (port 6379 as a rule): for a "
            "job server's address use `sentray submit`"
        )
    try:
        if address != "auto":
            # Where nobody listens, Ray would go on trying for ten minutes.
            require_listener(host.strip("[]"), int(port))
        # Without an environment of its own, so that it takes the processes that Ray keeps ready.
        ray.init(address, **arguments)
    except (OSError, RuntimeError, ValueError, OverflowError, ray.exceptions.AuthenticationError) as error:
        # Ray goes on trying to connect after it was refused, and ends with a ConnectionError.
        if any("authentic" in str(each).lower() for each in _causes(error)):
            raise refused(f"the Ray cluster at {address}") from error
        if _NO_NODE_HERE in str(error):
            raise SentrayError(
                f"this machine is no node of the Ray cluster at {address}: give the command on one of its nodes, or "
                "from here by `sentray submit` to its job server"
            ) from error
        raise SentrayError(
            f"no Ray cluster answers at {address} ({first_line(error)}): start one with `ray start --head`, or leave "
            "out --address and RAY_ADDRESS to use this machine"
        ) from error


def require_listener(host: str, port: int) -> None:
    """Find out at once whether anybody listens at an address.

    Raises:
        OSError: Nobody does.
        OverflowError: There is no such port.
    """
    socket.create_connection((host, port), timeout=_LISTENER_SECONDS).close()


def refused(server: str) -> SentrayError:
    """The sentence for a client without the cluster's token."""
    return SentrayError(
        f"{server} refuses this client: set RAY_AUTH_MODE=token and give the cluster's token in RAY_AUTH_TOKEN or "
        "~/.ray/auth_token"
    )


@contextmanager
def environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Set variables that the user has not set, within the block and for the processes that start there."""
    added = {name: value for name, value in variables.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)


def resources() -> Resources:
    """The connected cluster's resources, as Ray counts them now."""
    import ray
    from ray._private.state import state

    total, free = ray.cluster_resources(), ray.available_resources()
    cpus, gpus = total.get("CPU", 0.0), total.get("GPU", 0.0)
    limits = state.get_max_resources_from_cluster_config() or {}
    living = (node["Resources"] for node in ray.nodes() if node["Alive"])
    return Resources(
        cpus=cpus,
        gpus=gpus,
        free_cpus=free.get("CPU", 0.0),
        free_gpus=free.get("GPU", 0.0),
        max_cpus=max(cpus, limits.get("CPU", 0)),
        max_gpus=max(gpus, limits.get("GPU", 0)),
        nodes=tuple((node.get("CPU", 0.0), node.get("GPU", 0.0)) for node in living),
    )


def plan(workers: int, cpus_each: float, gpus_each: float = 0, *, on: Resources | None = None) -> Plan:
    """Check that the cluster can hold these workers at once.

    Args:
        workers: how many workers run at the same time.
        cpus_each: CPUs of each; fractions are allowed.
        gpus_each: GPUs of each; 0 for none.
        on: the cluster's resources; those of the connected cluster where not given.

    Raises:
        SentrayError: It can never do so; says what is missing and what to change.
    """
    have = on or resources()
    nodes = [(have.max_cpus, have.max_gpus)] if have.grows else have.nodes
    if sum(_fits(*node, cpus_each, gpus_each) for node in nodes) >= workers:
        return Plan(workers, cpus_each, gpus_each, have.max_cpus - workers * cpus_each)
    wish = f"{count(workers, 'worker')} with {count(cpus_each, 'CPU')}"
    has = count(have.max_cpus, "CPU")
    if gpus_each:
        wish, has = f"{wish} and {count(gpus_each, 'GPU')}", f"{has} and {count(have.max_gpus, 'GPU')}"
    raise SentrayError(
        f"the plan wants {wish} each; the cluster has {has} on {count(len(have.nodes), 'node')}, which cannot hold "
        f"them: take fewer --workers{', leave out --gpu' if gpus_each else ''} or reach a larger cluster by --address"
    )


def _fits(cpus: float, gpus: float, cpus_each: float, gpus_each: float) -> int:
    """How many workers one node holds."""
    shares = [have / each for have, each in ((cpus, cpus_each), (gpus, gpus_each)) if each]
    return math.floor(min(shares) + _ROUNDING)


def require_shared(folder: Path, name: str) -> None:
    """Check that every node of the connected cluster sees a local folder as this process does; see `require_seen`.

    Args:
        folder: A folder, made where there is none.
        name: How the user named it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=folder, prefix=".shared-") as mark:
        require_seen(mark.name, name)


def require_seen(path: str, name: str) -> None:
    """Check that every node of the connected cluster sees what lies at a local path.

    Nodes that the autoscaler adds later cannot be asked yet.

    Args:
        path: Of a file or a folder.
        name: What it belongs to, in the user's words.

    Raises:
        SentrayError: Some node does not, or cannot run sentray.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = ray.get_runtime_context().get_node_id()
    look = ray.remote(num_cpus=0, max_retries=0)(_sees)
    asked = {}
    for node in ray.nodes():
        if node["Alive"] and node["NodeID"] != here:
            there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            asked[look.options(scheduling_strategy=there).remote(path)] = node["NodeManagerAddress"]
    answered, _ = ray.wait(list(asked), num_returns=len(asked), timeout=_ANSWER_SECONDS) if asked else ([], [])
    blind = set()
    for answer in answered:
        try:
            if not ray.get(answer):
                blind.add(asked[answer])
        except (ray.exceptions.RayTaskError, ray.exceptions.RuntimeEnvSetupError) as error:
            cause = getattr(error, "cause", None) or error
            raise SentrayError(
                f"the node {asked[answer]} cannot run sentray ({type(cause).__name__}: {first_line(cause)}): install "
                "it there, or have that done by `sentray submit --install`"
            ) from error
        except ray.exceptions.RayError:
            # A node that died meanwhile need not see anything.
            continue
    if blind:
        raise SentrayError(
            f"{name} is of this machine, and {count(len(blind), 'node')} of the cluster "
            f"({', '.join(sorted(blind)[:3])}{', …' if len(blind) > 3 else ''}) cannot see it: choose a place that all "
            "nodes share, such as s3://BUCKET/… or a mounted folder"
        )


def _sees(path: str) -> bool:
    # Of this module and not of `os`, so that a node without sentray is found out.
    return os.path.exists(path)


def user_error(error: BaseException) -> SentrayError | None:
    """The user's mistake behind an error, however Ray wrapped it on its way from another process."""
    errors = list(_causes(error))
    for each in errors:
        # Ray's own copy of a remote error is a SentrayError too, but its text holds the remote traceback.
        if isinstance(each, SentrayError) and not hasattr(each, "cause"):
            return each
    # Ray Data brings back no more of what a task raised than the text of its traceback.
    line = re.compile(rf"^{SentrayError.__module__}\.SentrayError: (.+)$", re.MULTILINE)
    sentences = [sentence for each in errors for sentence in line.findall(str(each))]
    return SentrayError(sentences[0]) if sentences else None


def _causes(error: BaseException) -> Iterator[BaseException]:
    """An error and all that led to it or that it holds, nearest first."""
    queue: list[Any] = [error]
    seen: set[int] = set()
    for each in queue:
        if not isinstance(each, BaseException) or id(each) in seen:
            continue
        seen.add(id(each))
        yield each
        failures = getattr(each, "worker_failures", None)
        queue += failures.values() if isinstance(failures, dict) else ()
        queue += [getattr(each, name, None) for name in ("cause", "controller_failure")]
        queue += [each.__cause__, each.__context__, *each.args]
