"""Calibrates live: takes views of a board from topics, says what is wanted, solves, and publishes the rig."""

from __future__ import annotations

import datetime
import json
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from rclpy._rclpy_pybind11 import RCLError
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import String
from std_srvs.srv import Trigger

from anysense_ros import calibrate_settings
from anysense_ros.calibrating import (
    Panel,
    Solved,
    Solver,
    Source,
    ViewFolder,
    Wish,
    draw_panels,
    wish_of,
)
from anysense_ros.changes import ChangeLog
from anysense_ros.codec import input_form
from anysense_ros.conversions import header, image, to_camera
from anysense_ros.diagnostics import ERROR, OK, WARN, Diagnostics
from anysense_ros.rig_topics import RigTopics
from anysense_ros.view_taking import Moment, ViewTaker
from perception.errors import AnySenseError, CalibrationError
from perception.files.writing import write_json, write_yaml
from perception.geometry.camera import CameraModel
from perception.sensors.names import has_picture

RESULT = "result.json"
_SILENT_S = 2.0
_STRANGE_S = 10.0
"""Publishers that were found are heard long before."""

_FEEDBACK_S = 0.2
_INFO_PERIOD_S = 1.0
_ENDING_S = 5.0


class _EndedError(Exception):
    """The node ends while something is solved."""


class CalibrateNode(Node):  # type: ignore[misc]
    """Topics and services around `ViewTaker` and `Solver`.

    Raises:
        AnySenseError: a parameter is wrong, or the folder cannot be made.
    """

    def __init__(self) -> None:
        super().__init__("calibrate")
        self.settings = s = calibrate_settings.declare(self)
        folder = ViewFolder(s.output, s.cameras, s.clouds)
        self._changes = ChangeLog(self._say)
        self._views = ViewTaker(s, folder, self._on_said, self._on_looked)
        self._infos: dict[str, CameraInfo] = {}
        self._solver: threading.Thread | None = None
        self._solving: dict[str, Any] | None = None
        self._result: dict[str, Any] | None = None
        self._solved: Solved | None = None
        self._moment: Moment | None = None
        self._ended = False
        self._said_at = 0.0
        self._began = time.monotonic()
        self._subscribed: dict[
            str, str
        ] = {}  # by sensor, the topic as it is called after remapping
        self._know_cameras()
        latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self._feedback = self.create_publisher(String, "~/feedback", latched)
        self._picture = self.create_publisher(Image, "~/view", 1)
        self._diagnostics = Diagnostics(self)
        self._topics = None
        if s["publish_rig"]:
            self._topics = RigTopics(self, _INFO_PERIOD_S, s["tf"])
        self._services = [
            self.create_service(Trigger, f"~/{name}", call)
            for name, call in (
                ("solve", self._on_solve),
                ("take", self._on_take),
                ("reset", self._on_reset),
            )
        ]
        self._subscribe()
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self._timer = self.create_timer(s["diagnostics.period_s"], self._report, clock=steady)
        # Publishers are the executor's, the solver has a thread of its own.
        self._when_solved = self.create_guard_condition(self._publish_rig)

    def start(self) -> None:
        """Begin to look."""
        self._views.start()

    def close(self) -> None:
        """Stop; what is solved meanwhile is given up."""
        self._ended = True
        self._views.close()
        if self._solver is not None:
            self._solver.join(_ENDING_S)

    # -- topics ------------------------------------------------------------------------------

    def _subscribe(self) -> None:
        s = self.settings
        qos = QoSProfile(
            depth=s["qos.depth"], reliability=ReliabilityPolicy[s["qos.reliability"].upper()]
        )
        info_qos = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
        for name, kind in s.kinds.items():
            form, suffix = input_form(name, kind, s[f"{name}.transport"])
            topic = s[f"{name}.topic"] or f"~/input/{name}"
            topic = topic if suffix and topic.endswith(suffix) else topic + suffix
            made = self.create_subscription(form, topic, partial(self._views.push, name), qos)
            self._subscribed[name] = made.topic_name
            if has_picture(kind):
                topic = s[f"{name}.info_topic"] or f"~/input/{name}/camera_info"
                self.create_subscription(CameraInfo, topic, partial(self._on_info, name), info_qos)

    def _on_info(self, name: str, message: CameraInfo) -> None:
        before, self._infos[name] = self._infos.get(name), message
        if self.settings[f"{name}.intrinsics"] != "camera_info":
            return
        if before is None or list(before.k) != list(message.k) or before.d != message.d:
            self._know_cameras()

    def _known(self, name: str) -> CameraModel | None:
        """A camera's intrinsics that are not to be found here.

        Raises:
            CalibrationError: they were not heard of, or cannot be.
        """
        how = self.settings[f"{name}.intrinsics"]
        if how == "rig":
            old = self.settings.old_rig()
            camera = old.sensors[name].camera if old is not None and name in old.sensors else None
            if camera is None:
                raise CalibrationError("the rig has no intrinsics any more", where=name)
            return camera
        if how == "camera_info":
            if name not in self._infos:
                raise CalibrationError("no camera_info was heard", where=name)
            return to_camera(self._infos[name])
        return None

    def _know_cameras(self) -> None:
        for name in self.settings.cameras:
            try:
                camera = self._known(name)
            except AnySenseError:
                continue  # it is said when something is solved
            if camera is not None:
                self._views.chooser.models[name] = camera

    # -- views, on their thread --------------------------------------------------------------

    def _on_said(self, level: str, line: str) -> None:
        if level == "info":
            self._say(level, line)
        else:
            self._changes.repeat(line, level, line)

    def _on_looked(self, moment: Moment) -> None:
        self._moment = moment
        try:
            self._draw(moment)
            if moment.took or time.monotonic() - self._said_at > _FEEDBACK_S:
                self._tell()
        except RCLError:
            if self.context.ok():  # otherwise a signal has taken the topics from under us
                raise

    def _wishes(self) -> dict[str, Wish]:
        s, taken = self.settings, self._views.chooser.taken
        return {
            name: wish_of(
                taken[name], s["min_views"], intrinsics=s[f"{name}.intrinsics"] == "solve"
            )
            for name in s.cameras
        }

    def _draw(self, moment: Moment) -> None:
        if not self._picture.get_subscription_count():
            return
        wishes, taken = self._wishes(), self._views.chooser.taken
        panels = [
            Panel(
                name,
                moment.samples[name].data,
                moment.looks[name].sighting if name in moment.looks else None,
                moment.problems.get(name, "") or ("" if moment.looks[name].new else "known"),
                taken[name],
                wishes[name],
            )
            for name in self.settings.cameras
            if name in moment.samples
        ]
        others = [f"{n}: {moment.problems.get(n) or 'good'}" for n in self.settings.clouds]
        head = "; ".join([f"{self._views.views()} of {self.settings['min_views']} views", *others])
        drawn = draw_panels(panels, head)
        now = self.get_clock().now().nanoseconds
        self._picture.publish(image(drawn, header(now, self.settings.cameras[0]), "rgb8"))

    # -- what is said ------------------------------------------------------------------------

    def _tell(self) -> None:
        self._said_at = time.monotonic()
        try:
            self._feedback.publish(String(data=json.dumps(self._state())))
        except RCLError:
            if self.context.ok():
                raise

    def _state(self) -> dict[str, Any]:
        views, moment, wishes = self._views, self._moment, self._wishes()
        hints = [f"{n}: {w.text}" for n, w in wishes.items() if not w.enough]
        sensors: dict[str, dict[str, Any]] = {}
        for name in self.settings.kinds:
            own: dict[str, Any] = {"views": views.count(name), "problem": self._problem(name)}
            if name in wishes:
                look = moment.looks.get(name) if moment is not None else None
                own |= {
                    "new": look is not None and look.new,
                    "hint": wishes[name].text,
                    "progress": {k: round(v, 3) for k, v in wishes[name].progress.items()},
                }
            sensors[name] = own
        reading = views.reading
        return {
            "state": "solving" if self._solving else "reading" if reading else "taking",
            "views": views.views(),
            "wanted": self.settings["min_views"],
            "enough": not hints,
            "hint": hints[0] if hints else next(iter(wishes.values())).text,
            "took": moment.took if moment is not None else "",
            "sensors": sensors,
            "solving": self._solving,
            "result": self._result,
        }

    def _problem(self, name: str) -> str:
        """Why there is no view by a sensor: what is lasting first, then what the last moment showed."""
        views, moment = self._views, self._moment
        since = time.monotonic() - views.heard.get(name, -1e9)
        if since > _SILENT_S:
            return "no message" if name in views.heard else self._unheard(name)
        if name in views.faults:
            return views.faults[name]
        if name in self.settings.wanted and (off := views.apart_ms(name)) is not None:
            most = self.settings["sync.tolerance_ms"]
            first = self.settings.wanted[0]
            return f"stamps are {off:.0f} ms from those of {first}, more than {most:g}"
        return moment.problems.get(name, "") if moment is not None else ""

    def _unheard(self, name: str) -> str:
        """What there is to say of a sensor that never spoke, though it may be there."""
        strange = time.monotonic() - self._began > _STRANGE_S
        topic = self._subscribed[name]
        if not strange or not self.count_publishers(topic):
            return "no message yet"
        return f"no message yet, though {topic} is published: see its QoS, or start this node again"

    def _report(self) -> None:
        """Everything, on the timer."""
        s, views = self.settings, self._views
        now = time.monotonic()
        for name in s.kinds:
            problem = self._problem(name)
            silent = now - views.heard.get(name, -1e9) > _SILENT_S
            bad = silent or name in views.faults or problem.startswith("stamps ")
            level = WARN if bad else OK
            values = {"views": views.count(name), "frame": views.frames.get(name, "")}
            self._diagnostics.set(name, level, problem or "ok", values, words=False)
            line = f"{name}: {problem.removeprefix(f'{name}: ')}" if bad else f"{name}: is well"
            self._changes.note(name, problem if bad else "", "warn" if bad else "info", line)
        state = self._state()
        said = {"views": state["views"], "wanted": state["wanted"], "output": s.output}
        self._diagnostics.set("views", OK, state["hint"], said)
        self._diagnostics.set("solver", *self._condition())
        self._diagnostics.publish()
        self._changes.tick()
        self._tell()

    def _condition(self) -> tuple[bytes, str, dict[str, Any]]:
        if self._solving is not None:
            return OK, f"solving: {self._solving['what']}", {}
        if self._result is None:
            return OK, "nothing was solved", {}
        steps = {name: step["line"] for name, step in self._result["steps"].items()}
        if self._result["trusted"]:
            return OK, "trusted", steps
        return (WARN if self._result["rig"] else ERROR), self._result["verdict"], steps

    # -- services ----------------------------------------------------------------------------

    def _on_take(self, request: Any, response: Any) -> Any:
        return self._answer(response, lambda: f"took view {self._views.take_now()}")

    def _on_reset(self, request: Any, response: Any) -> Any:
        def reset() -> str:
            aside = self._views.reset()
            return f"views were moved to {aside}" if aside else "there were no views"

        return self._answer(response, reset)

    def _on_solve(self, request: Any, response: Any) -> Any:
        return self._answer(response, self._begin_solving)

    def _answer(self, response: Any, do: Callable[[], str]) -> Any:
        try:
            if self._solving is not None:
                raise AnySenseError(f"wait: {self._solving['what']} is being solved")
            if self._views.reading is not None:
                raise AnySenseError("wait: the views that are there are being read")
            response.success, response.message = True, do()
        except AnySenseError as error:
            response.success, response.message = False, str(error)
        self._say("info" if response.success else "warn", response.message)
        self._tell()
        return response

    # -- solving -----------------------------------------------------------------------------

    def _begin_solving(self) -> str:
        s, views = self.settings, self._views
        sources = [
            Source(
                name,
                s.kinds[name],
                s.output / name,
                name in s.cameras,
                self._known(name) if name in s.cameras else None,
                views.frames.get(name, ""),
            )
            for name in (*s.cameras, *s.clouds)
        ]
        solver = Solver(
            sources,
            s.board,
            s.plate,
            s.old_rig(),
            model=s["model"],
            date=datetime.date.today().isoformat(),
            told=f"ros2 run anysense_ros calibrate, {s.output}",
            progress=self._on_progress,
        )
        self._solving = {"what": "views", "done": 0, "of": 1}
        views.pause(True)
        self._solver = threading.Thread(target=self._solve, args=(solver,), daemon=True)
        self._solver.start()
        return f"solving {views.views()} views; ~/feedback says how it goes"

    def _on_progress(self, text: str, done: int, of: int) -> None:
        if self._ended:
            raise _EndedError
        self._solving = {"what": text, "done": done, "of": of}
        if time.monotonic() - self._said_at > _FEEDBACK_S:
            self._tell()

    def _solve(self, solver: Solver) -> None:
        try:
            solved = solver.run()
            self._result = self._written(solved)
            self._solved = solved
        except _EndedError:
            return
        except Exception as error:  # a full disk, or what nobody thought of
            known = isinstance(error, AnySenseError)
            line = str(error) if known else f"unexpected {type(error).__name__}: {error}"
            self._result = {"trusted": False, "verdict": line, "rig": None, "steps": {}}
            self._say("error", line)
        self._solving = None
        self._views.pause(False)
        self._tell()
        self._when_solved.trigger()

    def _written(self, solved: Solved) -> dict[str, Any]:
        """The answer for feedback, after it was written: all of it beside the views, and the rig."""
        s, path = self.settings, None
        if solved.rig is not None:
            s.rig.parent.mkdir(parents=True, exist_ok=True)
            write_yaml(s.rig, solved.rig.to_dict(), error=CalibrationError)
            path = str(s.rig)
        found = {"rig": path, "verdict": _verdict(solved), **solved.to_dict()}
        write_json(s.output / RESULT, found, error=CalibrationError)
        for step in solved.steps:
            self._say("info" if step.trusted else "warn", f"{step.name}: {step.line}")
        line = f"wrote {path}" if path else f"no rig is written; {s.output / RESULT} says why"
        self._say("info" if path else "warn", line)
        return found

    def _publish_rig(self) -> None:
        self._know_cameras()
        if self._topics is None or self._solved is None or self._solved.rig is None:
            return
        for line in self._topics.publish(self._solved.rig):
            self._say("warn", line)

    def _say(self, level: str, line: str) -> None:
        logger = self.get_logger()
        # rclpy ties a severity to each calling line, so every level has its own.
        if level == "error":
            logger.error(line)
        elif level == "warn":
            logger.warning(line)
        else:
            logger.info(line)


def _verdict(solved: Solved) -> str:
    """One line: whether it may be used, and else which step says why not."""
    doubted = [f"{step.name}: {step.line}" for step in solved.steps if not step.trusted]
    left_out = any(not step.written for step in solved.steps)
    if not doubted:
        return "trusted"
    return f"{'not to be trusted' if left_out else 'could be better'}: {' | '.join(doubted)}"
