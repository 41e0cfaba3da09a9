"""Workers on a Ray cluster (https://docs.ray.io): the only file that imports it.

Each is an actor that holds its engines.  It is given one chunk at a time, so that nothing piles up, and gives
back a few values: what comes out of a chunk goes to its place from there.  Another takes the place of
one that dies, and its chunk is given out again.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import time
import warnings
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import perception
from perception.errors import AnySenseError, ConfigError
from perception.extras import require
from perception.fleet.job import Job
from perception.fleet.ray_address import knock, prepare
from perception.fleet.work import Outcome, Task, Worker, versions
from perception.runtime.trust import demands

_LOG = logging.getLogger("anysense.fleet")
LOCAL = "ray"
ATTEMPTS = 3
"""A chunk whose worker dies so often is the cause, and has failed."""

_START_S = 120.0
_HELLO_S = 5.0
_BYE_S = 5.0
_LOOK_S = 1.0
_HINT = "install the same anysense[fleet] on all machines of the cluster"
_LOST = "is lost: what is done stays done, the same command goes on when it is back"


class _Actor:
    """A `Worker` in a process of its own."""

    def __init__(self, job: Job, demanded: dict[str, str]) -> None:
        os.environ.update(demanded)
        self._worker = Worker(job)

    @cached_property
    def _own(self) -> dict[str, str]:
        """What it runs, and what of the job its machine has."""
        try:
            given = self._worker.given
        except AnySenseError as error:
            given = f"not what it takes: {error}"
        return {**versions(), "given": given}

    def hello(self) -> dict[str, str]:
        """The same, and where it runs."""
        return {**self._own, "host": socket.gethostname(), "pid": str(os.getpid())}

    def do(self, task: Task, wanted: dict[str, str]) -> Outcome:
        """See `Worker.do`; nothing where this is another version than is wanted."""
        if self._own != wanted:
            what = f"the worker on {socket.gethostname()} runs another version, bundle or rig"
            return Outcome(f"{what} ({_HINT})", fatal=True)
        return self._worker.do(task)

    def close(self) -> None:
        """Remove what it has on its machine."""
        self._worker.close()


@dataclass
class _Given:
    """A task that a worker has, and since when."""

    worker: int
    task: Task
    since: float


class RayWorkers:
    """Does tasks on a cluster.

    Args:
        job: what is asked for; its `workers` say how many there are and what each takes.
        address: `ray://HOST:PORT` of a cluster, `HOST:PORT` of one that this machine is part of, or `ray` for
            one of this machine alone, which ends with the job.

    Attributes:
        workers: what each runs and where (`_Actor.hello`).

    Raises:
        MissingDependencyError: Ray is not installed.
        ConfigError: the head cannot be reached, no worker fits or starts, or one runs another version.
    """

    def __init__(self, job: Job, address: str) -> None:
        if address != LOCAL:
            prepare()
        require("workers on Ray", "ray")
        self._job, self._address = job, address
        self._ray = _connected(address, job)
        self._attempts: dict[int, int] = {}
        self._coming: dict[Any, Any] = {}
        try:
            own = Worker(job)
            try:
                self._own = {**versions(), "given": own.given}
            finally:
                own.close()
            self._actors, self.workers = self._started()
        except BaseException:
            self.close()
            raise

    def _started(self) -> tuple[list[Any], list[dict[str, str]]]:
        ray, wanted = self._ray, self._job.workers
        actors = [self._made() for _ in range(wanted.count)]
        asked = {actor.hello.remote(): actor for actor in actors}
        found = list[Any]()
        hellos = list[dict[str, str]]()
        end = time.monotonic() + _START_S
        with _naming(self._address):
            # One that fits is waited for; the others may come later.
            while asked and (left := end - time.monotonic()) > 0:
                ready, _ = ray.wait(list(asked), num_returns=1, timeout=min(left, _HELLO_S))
                if not ready and found:
                    break
                for one in ready:
                    hellos.append(_heard(ray, one, self._address, self._own))
                    found.append(asked.pop(one))
        self._coming = asked
        if not found:
            for actor in asked.values():
                ray.kill(actor)
            need = f"{wanted.cpus} CPUs and {wanted.gpus:g} GPUs"
            raise ConfigError(
                f"no worker with {need} could be started in {_START_S:.0f} s", where=self._address
            )
        return found, hellos

    def _made(self) -> Any:
        """A worker to be; what it is asked waits until there is one.

        Ray could start one that died anew by itself, but refuses what it is asked until it has.
        """
        wanted = self._job.workers
        choices = {"num_cpus": wanted.cpus, "num_gpus": wanted.gpus, "max_restarts": 0}
        return self._ray.remote(**choices)(_Actor).remote(self._job, demands())

    def run(self, tasks: Iterable[Task]) -> Iterator[tuple[Task, Outcome]]:
        """Each task once, as workers finish; a worker keeps to a recording as long as there is any of it."""
        ray, queue = self._ray, _Queue(tasks)
        idle, given = set(range(len(self._actors))), dict[Any, _Given]()
        while queue or given:
            for worker in sorted(idle):
                if (task := queue.next(worker)) is None:
                    break
                idle.discard(worker)
                ref = self._actors[worker].do.remote(task, self._own)
                given[ref] = _Given(worker, task, time.monotonic())
            with _naming(self._address):
                refs = [*given, *self._coming]
                ready, _ = ray.wait(refs, num_returns=1, timeout=_LOOK_S)
            for ref in ready:
                if ref in self._coming:
                    idle |= self._welcomed(ref)
                    continue
                own = given.pop(ref)
                idle.add(own.worker)
                outcome = self._outcome(ref, own)
                if outcome is None:
                    queue.again(own.task)
                else:
                    yield own.task, outcome
            for ref, own in list(given.items()):
                if time.monotonic() - own.since > self._job.workers.limit_s:
                    del given[ref]
                    idle.add(own.worker)
                    ray.kill(self._actors[own.worker])
                    self._actors[own.worker] = self._made()
                    yield own.task, Outcome(f"took longer than {self._job.workers.limit_s:g} s")

    def _welcomed(self, ref: Any) -> set[int]:
        """Take on a worker that comes later, as when a cluster grows; none of another version."""
        actor = self._coming.pop(ref)
        try:
            self.workers.append(_heard(self._ray, ref, self._address, self._own))
        except ConfigError as error:
            _LOG.warning("%s", error)
            self._ray.kill(actor)
            return set()
        self._actors.append(actor)
        return {len(self._actors) - 1}

    def _outcome(self, ref: Any, own: _Given) -> Outcome | None:
        """What came of a task; None where it is to be given out again."""
        errors = self._ray.exceptions
        try:
            found: Outcome = self._ray.get(ref)
            return found
        except (errors.RayActorError, errors.WorkerCrashedError, errors.OutOfMemoryError):
            self._actors[own.worker] = self._made()
            count = self._attempts[id(own.task)] = self._attempts.get(id(own.task), 0) + 1
            if count < ATTEMPTS:
                return None
            return Outcome(f"its worker died {count} times")
        except errors.RayTaskError as error:
            line = next(iter(str(error.cause or error).splitlines()), "")[:300]
            return Outcome(f"internal error: {type(error.cause or error).__name__}: {line}")
        except (errors.RaySystemError, ConnectionError) as error:
            raise ConfigError(f"the cluster {_LOST}", where=self._address) from error

    def close(self) -> None:
        """Let the workers go; a cluster that was there before stays."""
        with contextlib.suppress(Exception):
            actors = getattr(self, "_actors", ())
            last = [actor.close.remote() for actor in actors]
            self._ray.wait(last, num_returns=len(last), timeout=_BYE_S)
        with contextlib.suppress(Exception):
            for actor in (*getattr(self, "_actors", ()), *self._coming.values()):
                self._ray.kill(actor)
        with contextlib.suppress(Exception):
            self._ray.shutdown()


class _Queue:
    """Tasks by recording: a worker takes on with its own, then one that nobody has, then helps another."""

    def __init__(self, tasks: Iterable[Task]) -> None:
        self._waiting: dict[str, deque[Task]] = {}
        for task in tasks:
            self._waiting.setdefault(task.source.name, deque()).append(task)
        self._own: dict[int, str] = {}

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def next(self, worker: int) -> Task | None:
        """A task for a worker; None when there is none left."""
        if not self._waiting:
            return None
        name = self._own.get(worker, "")
        if name not in self._waiting:
            taken = set(self._own.values())
            free = next((n for n in self._waiting if n not in taken), None)
            name = free or max(self._waiting, key=lambda n: len(self._waiting[n]))
            self._own[worker] = name
        task = self._waiting[name].popleft()
        if not self._waiting[name]:
            del self._waiting[name]
        return task

    def again(self, task: Task) -> None:
        """Take back a task whose worker died."""
        self._waiting.setdefault(task.source.name, deque()).appendleft(task)


def _connected(address: str, job: Job) -> Any:
    """Ray, connected."""
    import ray

    choices: dict[str, Any] = {
        "log_to_driver": False,
        "logging_level": logging.ERROR,
        "include_dashboard": False,
    }
    if address == LOCAL:
        choices["num_cpus"] = job.workers.count * job.workers.cpus
        # Workers of this machine run what this process runs, wherever that lies.
        paths = [str(Path(perception.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
        choices["runtime_env"] = {"env_vars": {"PYTHONPATH": os.pathsep.join(filter(None, paths))}}
    else:
        knock(address)
        choices = {"log_to_driver": False, "logging_level": logging.ERROR, "address": address}
    with _naming(address), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a client that has to wait; the error says it
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        ray.init(**choices)
    return ray


def _heard(ray: Any, ref: Any, address: str, own: dict[str, str]) -> dict[str, str]:
    """What a worker runs, which must be the same as here.

    Raises:
        ConfigError: it is not, or the worker cannot start.
    """
    try:
        found: dict[str, str] = ray.get(ref)
    except AnySenseError:
        raise
    except Exception as error:
        lines = [line.strip() for line in str(error).splitlines() if "Error" in line]
        reason = (lines or [type(error).__name__])[-1][:200]
        raise ConfigError(f"a worker cannot start: {reason}", where=address, hint=_HINT) from error
    for name, value in own.items():
        if found.get(name) != value and name == "given":
            reason = found[name] if " " in found[name] else "another bundle or rig"
            what = f"the worker on {found.get('host')} has {reason}"
            raise ConfigError(what, where=address, hint="the same for all, under the same path")
        if found.get(name) != value:
            what = (
                f"the worker on {found.get('host')} runs {name} {found.get(name)}, this is {value}"
            )
            raise ConfigError(what, where=address, hint=_HINT)
    return found


@contextlib.contextmanager
def _naming(address: str) -> Iterator[None]:
    """What Ray says of a connection, in one line."""
    try:
        yield
    except (AnySenseError, ImportError):
        raise
    except Exception as error:  # Ray raises that itself where a node does not start in time
        line = next(iter(str(error).splitlines()), "")[:200]
        hint = (
            "from a machine that is not part of it: ray://HOST:10001"
            if "to connect" in line
            else ""
        )
        raise ConfigError(f"cannot work there: {line}", where=address, hint=hint) from error
