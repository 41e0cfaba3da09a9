"""A part of a long bag, played so that its results are those of the whole bag from that time.

What a stream knows is of the last seconds: what waits in the collector, which sensors are trusted, the last
features of slow ones.  Playing therefore begins some time before the part, and of a sensor that said little
or nothing in that time its last messages are played before, so that one that was lost is lost.  What was said
of calibration before is taken in first, which takes no networks: transforms may be older than what is played.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from contextlib import closing, nullcontext
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from perception.adapters.messages import CAMERA_INFO, TF
from perception.bags.files import messages_in
from perception.bags.mcap import ALWAYS
from perception.bags.messages import BagMessage
from perception.bags.playback import STATIC, Playback
from perception.bags.storage import Bag, open_bag
from perception.runtime.result import Result

LEAST_MESSAGES = 12
"""Of each sensor, before the part: the collector looks at eight steps between stamps."""


@dataclass(frozen=True)
class Span:
    """A part of a bag, by the times that its messages were recorded at, in nanoseconds.

    Attributes:
        start_ns, end_ns: results are of the part whose last sample arrived from the one on, before the other.
    """

    start_ns: int
    end_ns: int


def parts_of_bag(path: Path, length_ns: int) -> list[Span] | None:
    """Parts of a length, counted from the first message; the last one is shorter.

    Where nothing was recorded there are none: the clock of a robot that starts without one is set by decades
    in the midst of a recording.

    Returns:
        None where the bag cannot be played in parts.

    Raises:
        DataError: it cannot be read.
    """
    with open_bag(path) as bag:
        whole = bag.span()
        if whole is None:
            return None
        first, last = whole
        starts = [first + step * length_ns for step in bag.filled(first, length_ns)]
    return [Span(start, min(start + length_ns, last + 1)) for start in starts]


def memory_ns(playback: Playback) -> int:
    """How long before a part playing begins: more than anything in a stream is remembered.

    That is `LEAST_MESSAGES` of sensors that speak three times in their timeout, or twice the deadline, the
    hold and age of features, and the time after which content is frozen.
    """
    stream = playback.stream
    pipeline, collector = stream.pipeline, stream.collector
    policy, health = pipeline.policy, pipeline.health.config
    times = [collector.deadline_ns]
    times += [round(ms * 1e6) for ms in (policy.hold_ms, policy.max_age_ms, health.frozen_ms)]
    timeouts = [t.timeout_ns * LEAST_MESSAGES // 3 for t in collector.sensors.values()]
    return max(2 * max(times), *timeouts)


def play_part(
    playback: Playback, bag: Path | Bag, span: Span, before_ns: int, looked_ns: int = 0
) -> Iterator[tuple[Result, bool]]:
    """Play a part of a bag; a playback plays one part.

    Before results are given, and behind the part, samples are decoded, checked and gathered, but networks run
    only where a result that is given is made of what they say.

    Args:
        playback: a new one.
        bag: the bag, opened or not.
        span: the part.
        before_ns: how long before it playing begins; see `memory_ns`.
        looked_ns: how long before it results are given.

    Yields:
        Each result of the part and of that time before it, and whether it is of the part.  One that holds
        values of a result before all these has none.

    Raises:
        DataError: it cannot be read, or a part of it claims to be of another time than it is.
        EngineError: the backend failed.
    """
    with nullcontext(bag) if isinstance(bag, Bag) else open_bag(bag) as opened:
        playback.prepare(opened)
        begin = span.start_ns - before_ns
        # A group that began in the part leaves when it is due, at the latest; what follows may end it sooner.
        end = span.end_ns + 2 * playback.stream.collector.deadline_ns
        first = span.start_ns - looked_ns
        playback.stream.looked_at = first, span.end_ns
        _calibrate(opened, playback, begin)
        earlier = _earlier(opened, playback, begin, span.start_ns)
        later = messages_in(opened, within=(begin, end))
        with closing(playback.play(chain(earlier, later))) as results:
            for result in results:
                if first <= result.arrived_ns < span.end_ns:
                    yield result, result.arrived_ns >= span.start_ns


def _calibrate(bag: Bag, playback: Playback, begin_ns: int) -> None:
    """Take in what was said of calibration before."""
    found = [_last(bag, topic, begin_ns, 1, {CAMERA_INFO}) for topic in playback.calibrating]
    if playback.calibration.uses_tree(playback.kinds):
        topics = {c.topic for c in bag.channels if c.type == TF}
        static = {topic for topic in topics if topic.endswith(STATIC)}
        oldest = playback.calibration.max_age_ns
        since = ALWAYS[0] if oldest is None else begin_ns - 2 * oldest
        for own, first in ((static, ALWAYS[0]), (topics - static, since)):
            if own:
                found.append(list(messages_in(bag, own, hinted=True, within=(first, begin_ns))))
    for message in heapq.merge(*found, key=lambda message: message.stamp_ns):
        playback.calibrate(message)


def _earlier(bag: Bag, playback: Playback, begin_ns: int, start_ns: int) -> list[BagMessage]:
    """The last messages, before playing begins, of sensors that say little until the part starts."""
    spoken = dict.fromkeys(playback.topics, 0)
    for channel, _, _ in bag.messages(set(spoken), hinted=True, within=(begin_ns, start_ns)):
        spoken[channel.topic] += 1
        if min(spoken.values()) >= LEAST_MESSAGES:
            return []
    silent = [topic for topic, count in spoken.items() if count < LEAST_MESSAGES]
    found = [_last(bag, topic, begin_ns, LEAST_MESSAGES) for topic in silent]
    return list(heapq.merge(*found, key=lambda message: message.stamp_ns))


def _last(
    bag: Bag, topic: str, when_ns: int, count: int, types: set[str] | None = None
) -> list[BagMessage]:
    last = bag.last_before(topic, when_ns, count)
    return [
        BagMessage(channel.topic, channel.type, stamp, data)
        for channel, stamp, data in last
        if channel.encoding == "cdr" and (types is None or channel.type in types)
    ]
