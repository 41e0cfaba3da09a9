"""Fusers of one subset of inputs each, made while the general one runs, as many as there is room for."""

from __future__ import annotations

import logging
import os
import threading
from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping

from perception.runtime.engines.base import Engine, SpecialForms, Tensor
from perception.runtime.engines.probe import relative_error
from perception.runtime.presence_graph import for_presence
from perception.runtime.wiring import FUSER, PRESENCE

_LOG = logging.getLogger("anysense.engines")

VARIABLE = "ANYSENSE_SUBSET_FUSERS"

MOST = 4
"""How many are kept.  Each has the fuser's weights once more, and memory to compute in."""

USED_OFTEN, USED_LAST = 5, 60
"""A subset gets its own fuser once it has been used so often; or, where the place of another is taken for
it, so often in a row."""

LARGEST_ERROR = 1e-5
"""Relative to the general fuser, on the frame for which it is made: what rounding otherwise may do."""


class SubsetFusers(SpecialForms):
    """Makes and keeps them.  May be used from several threads; nobody waits for one that is being made.

    Args:
        read: gives the general fuser's graph.

    Attributes:
        made: by what `presence` holds, those that are there, the last one used at the end.
    """

    def __init__(self, read: Callable[[], bytes]) -> None:
        self._read = read
        self._off = os.environ.get(VARIABLE) == "0"
        self.made: OrderedDict[bytes, Engine] = OrderedDict()
        self._useless: set[bytes] = set()
        self._used: Counter[bytes] = Counter()
        self._last: tuple[bytes, int] = (b"", 0)
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()  # for all of these; never held while anything is made or run

    def find(self, feeds: Mapping[str, Tensor]) -> Engine | None:
        key = _key(feeds)
        with self._lock:
            before, times = self._last
            self._last = key, times + 1 if before == key else 1
            engine = self.made.get(key)
            if engine is not None:
                self.made.move_to_end(key)
            return engine

    def note(
        self,
        feeds: Mapping[str, Tensor],
        outputs: Mapping[str, Tensor],
        load: Callable[[bytes, str], Engine],
    ) -> None:
        key = _key(feeds)
        with self._lock:
            if key in self._useless or key in self.made or self._off:
                return
            self._used[key] += 1
            enough = self._used[key] >= USED_OFTEN
            if len(self.made) >= MOST:
                enough = self._last[0] == key and self._last[1] >= USED_LAST
            if not enough or self._thread is not None:
                return
            # No daemon, as threads of daemons are: C++ would abort a process that ends while a
            # backend is at work in it.
            self._thread = thread = threading.Thread(
                target=self._make,
                args=(key, feeds, dict(outputs), load),
                name="anysense-fuser",
                daemon=False,
            )
        thread.start()

    def refuse(self, feeds: Mapping[str, Tensor]) -> None:
        key = _key(feeds)
        with self._lock:
            self.made.pop(key, None)
            self._useless.add(key)

    def settle(self) -> None:
        """Wait until none is being made."""
        if (thread := self._thread) is not None:
            thread.join()

    def _make(
        self,
        key: bytes,
        feeds: Mapping[str, Tensor],
        wanted: Mapping[str, Tensor],
        load: Callable[[bytes, str], Engine],
    ) -> None:
        engine: Engine | None = None
        with self._lock:  # before, not after: one more beside them would be the most memory ever
            while len(self.made) >= MOST:
                self.made.popitem(last=False)
        try:
            engine = self._compared(feeds, wanted, load)
        except Exception as error:  # of whatever type: the general one does as well, only slower
            _LOG.info("no fuser of its own: %s", error)
        finally:
            with self._lock:
                self._thread = None
                if engine is None:
                    self._useless.add(key)
                else:
                    self.made[key] = engine

    def _compared(
        self,
        feeds: Mapping[str, Tensor],
        wanted: Mapping[str, Tensor],
        load: Callable[[bytes, str], Engine],
    ) -> Engine | None:
        presence = feeds[PRESENCE]
        where = f"{FUSER} for presence {' '.join(f'{there:g}' for there in presence)}"
        content = for_presence(self._read(), {PRESENCE: presence}, where=where)
        if content is None:
            return None
        engine = load(content, where)
        found = engine.run({spec.name: feeds[spec.name] for spec in engine.inputs})
        same = found.keys() == wanted.keys() and all(
            found[n].shape == v.shape for n, v in wanted.items()
        )
        if not same or relative_error(found, wanted) > LARGEST_ERROR:
            _LOG.info("%s computes something else", where)
            return None
        return engine


def _key(feeds: Mapping[str, Tensor]) -> bytes:
    return feeds[PRESENCE].tobytes()
