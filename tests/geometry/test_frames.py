"""The frame tree: chains, time, and what cannot be looked up."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perception.errors import CalibrationError
from perception.files.limits import MAX_FRAMES, MAX_TRANSFORMS
from perception.geometry.frames import FrameTree, interpolate
from perception.geometry.transforms import RigidTransform


def _shift(x: float, y: float = 0.0) -> RigidTransform:
    return RigidTransform(np.eye(3), np.array([x, y, 0.0]))


def _turn(degrees: float, x: float = 0.0) -> RigidTransform:
    half = np.radians(degrees) / 2
    return RigidTransform.from_quaternion_xyzw((0, 0, np.sin(half), np.cos(half)), [x, 0, 0])


def test_a_chain_through_the_common_ancestor() -> None:
    tree = FrameTree()
    tree.set("base", "mast", _shift(0, 1), static=True)
    tree.set("mast", "lidar", _turn(90), static=True)
    tree.set("base", "camera", _shift(2), static=True)
    point = np.array([[1.0, 0.0, 0.0]])
    assert np.allclose(tree.lookup("base", "lidar").apply(point), [[0, 2, 0]])
    assert np.allclose(tree.lookup("camera", "/lidar").apply(point), [[-2, 2, 0]])
    back = tree.lookup("lidar", "camera") @ tree.lookup("camera", "lidar")
    assert np.allclose(back.matrix, np.eye(4))
    assert np.allclose(tree.lookup("x", "x").matrix, np.eye(4))


def test_interpolation_in_time() -> None:
    tree = FrameTree()
    tree.set("base", "head", _turn(0, 0), 100)
    tree.set("base", "head", _turn(90, 2), 200)
    middle = tree.lookup("base", "head", 150)
    assert np.allclose(middle.matrix, _turn(45, 1).matrix)
    assert np.allclose(tree.lookup("base", "head", 0).matrix, _turn(0).matrix)
    assert np.allclose(tree.lookup("base", "head", 999).matrix, _turn(90, 2).matrix)
    assert np.allclose(tree.lookup("base", "head").matrix, _turn(90, 2).matrix)


def test_static_transforms_are_replaced_and_history_is_bounded() -> None:
    tree = FrameTree(history_ns=100)
    tree.set("a", "b", _shift(1), 5, static=True)
    tree.set("a", "b", _shift(2), 1, static=True)
    assert tree.lookup("a", "b", 5).translation[0] == 2
    for stamp in range(0, 100_000, 10):
        tree.set("a", "c", _shift(stamp), stamp)
    assert len(tree._edges["c"].samples) <= 11
    tree.set("a", "c", _shift(-1), 50)  # the clock was set back
    assert tree.lookup("a", "c").translation[0] == -1


def test_a_frame_may_move_to_another_parent() -> None:
    tree = FrameTree()
    tree.set("left", "tool", _shift(1), static=True)
    tree.set("right", "tool", _shift(3), static=True)
    assert tree.lookup("right", "tool").translation[0] == 3
    with pytest.raises(CalibrationError, match="left"):
        tree.lookup("left", "tool")


def test_what_cannot_be_looked_up() -> None:
    tree = FrameTree()
    tree.set("a", "b", _shift(1))
    tree.set("c", "d", _shift(1))
    with pytest.raises(CalibrationError, match="nothing is known of 'ghost'"):
        tree.lookup("a", "ghost")
    with pytest.raises(CalibrationError, match="separate trees"):
        tree.lookup("b", "d")
    tree.set("b", "a", _shift(1))
    with pytest.raises(CalibrationError, match="loop"):
        tree.lookup("a", "d")
    for parent, child in (("", "x"), ("x", ""), ("x", "/x")):
        with pytest.raises(CalibrationError):
            tree.set(parent, child, _shift(1))


@given(st.floats(-170, 170), st.floats(-170, 170), st.floats(0, 1))
def test_interpolation_stays_a_rotation_between_its_ends(a: float, b: float, share: float) -> None:
    mixed = interpolate(_turn(a), _turn(b), share)
    assert np.allclose(mixed.rotation @ mixed.rotation.T, np.eye(3))
    way = (b - a + 180) % 360 - 180
    if abs(abs(way) - 180) > 1:  # opposite rotations have two shortest ways
        assert np.allclose(mixed.rotation, _turn(a + share * way).rotation, atol=1e-3)


def test_countless_frames_do_not_push_out_those_that_hold() -> None:
    tree = FrameTree()
    tree.set("base", "camera", _shift(2), static=True)
    tree.set("base", "mast", _shift(0), 5)
    for number in range(3 * MAX_FRAMES):
        tree.set("base", f"tag_{number}", _shift(number), number)
        if number % 1000 == 0:
            tree.set("base", "mast", _shift(number), number)
    assert len(tree._edges) == MAX_FRAMES
    assert tree.lookup("base", "camera").translation[0] == 2
    assert tree.lookup("base", "mast").translation[0] > 0
    assert tree.lookup("base", f"tag_{3 * MAX_FRAMES - 1}")
    with pytest.raises(CalibrationError, match="nothing is known of 'tag_0'"):
        tree.lookup("base", "tag_0")


def test_static_frames_are_refused_rather_than_forgotten() -> None:
    tree = FrameTree()
    for number in range(MAX_FRAMES):
        tree.set("base", f"part_{number}", _shift(number), static=True)
    for static in (True, False):
        with pytest.raises(CalibrationError, match=f"more than {MAX_FRAMES} frames"):
            tree.set("base", "one more", _shift(1), static=static)
    tree.set("base", "part_0", _shift(-7), static=True)
    assert tree.lookup("base", "part_0").translation[0] == -7


def test_histories_of_many_frames_are_bounded_together() -> None:
    tree = FrameTree()
    still = _shift(1)
    for number in range(MAX_TRANSFORMS // 500 + 40):
        for stamp in range(500):
            tree.set("base", f"tag_{number}", still, stamp)
        if number == MAX_TRANSFORMS // 500 - 1:  # just as many as are kept
            assert tree.connects("base", "tag_0")
    assert sum(len(e.samples) for e in tree._edges.values()) == tree._kept <= MAX_TRANSFORMS
    assert tree.lookup("base", f"tag_{number}", 250) and not tree.connects("base", "tag_0")


@given(
    st.lists(
        st.tuples(
            st.sampled_from("abcd"), st.sampled_from("abcd"), st.booleans(), st.integers(0, 10**11)
        ),
        max_size=40,
    )
)
def test_what_is_kept_is_counted_right(moves: list[tuple[str, str, bool, int]]) -> None:
    tree = FrameTree()
    for parent, child, static, stamp in moves:
        if parent != child:
            tree.set(parent, child, _shift(1), stamp, static=static)
        moving = {n: e for n, e in tree._edges.items() if not e.static}
        assert set(tree._moving) == set(moving)
        assert tree._kept == sum(len(e.samples) for e in moving.values())


def test_names_have_a_length() -> None:
    tree = FrameTree()
    for parent, child in (("a" * 10**6, "b"), ("b", "a" * 10**6)):
        with pytest.raises(CalibrationError, match="a name of more than") as caught:
            tree.set(parent, child, _shift(1))
        assert len(str(caught.value)) < 200


@pytest.mark.parametrize("degrees", [0, 0.5, 2, 3.7, 20, 120])
@pytest.mark.parametrize("share", [0.0, 0.25, 0.5, 1.0])
def test_rotations_are_interpolated_at_an_even_speed(degrees: float, share: float) -> None:
    mixed = interpolate(_turn(10, 1), _turn(10 + degrees, 3), share)
    assert np.allclose(mixed.matrix, _turn(10 + share * degrees, 1 + 2 * share).matrix, atol=1e-6)


def test_history_reaches_back_as_far_as_it_is_said_to() -> None:
    tree = FrameTree(history_ns=100)
    for stamp in (0, 50, 100):
        tree.set("a", "b", _shift(stamp), stamp)
    assert tree.lookup("a", "b", 25).translation[0] == 25
    tree.set("a", "b", _shift(101), 101)
    assert tree.lookup("a", "b", 25).translation[0] == 50  # the nearest that is left


def test_a_transform_of_the_same_stamp_replaces_the_one_before() -> None:
    tree = FrameTree()
    for x in (1, 5):
        tree.set("a", "b", _shift(x), 100)
    tree.set("a", "b", _shift(7), 200)
    assert tree.lookup("a", "b", 100).translation[0] == 5
    assert tree.lookup("a", "b", 150).translation[0] == 6


def test_transforms_that_come_late_are_put_in_their_place() -> None:
    tree = FrameTree()
    for stamp in (300, 100, 200):
        tree.set("a", "b", _shift(stamp), stamp)
    for stamp in (100, 130, 200, 260, 300):
        assert tree.lookup("a", "b", stamp).translation[0] == pytest.approx(stamp)


def test_a_transform_without_a_stamp_is_of_time_zero() -> None:
    tree = FrameTree()
    tree.set("a", "b", _shift(1))
    tree.set("a", "b", _shift(3), 2)
    assert tree.lookup("a", "b", 1).translation[0] == 2


def test_the_newest_of_a_busy_frame_are_kept() -> None:
    tree = FrameTree()
    for stamp in range(600):
        tree.set("a", "b", _shift(stamp), stamp)
    assert tree.lookup("a", "b", 100).translation[0] == 100
    assert tree.lookup("a", "b", 0).translation[0] == 100  # the last 500


def test_static_ways_are_told_from_those_that_move() -> None:
    tree = FrameTree()
    tree.set("map", "base", _shift(1))
    tree.set("base", "camera", _shift(1), static=True)
    tree.set("base", "arm", _shift(1), static=True)
    tree.set("arm", "hand", _shift(1))
    for one, other, static in (
        ("camera", "/arm", True),
        ("arm", "base", True),
        ("camera", "camera", True),
        ("hand", "camera", False),
        ("camera", "hand", False),
        ("map", "arm", False),
        ("camera", "elsewhere", False),
    ):
        assert tree.is_static(one, other) is static
        assert tree.connects(one, other) is (other != "elsewhere")


def test_long_chains_have_an_end() -> None:
    tree = FrameTree()
    for number in range(2000):
        tree.set(f"f{number}", f"f{number + 1}", _shift(1), static=True)
    assert tree.lookup("f1950", "f2000").translation[0] == 50
    with pytest.raises(CalibrationError):
        tree.lookup("f0", "f2000")


def test_only_what_moves_gets_too_old() -> None:
    tree = FrameTree()
    tree.set("base", "camera", _shift(1), 0, static=True)
    tree.set("base", "head", _shift(1), 100)
    assert tree.lookup("base", "camera", 10**12, max_age_ns=1)
    assert tree.lookup("head", "camera", 150, max_age_ns=50)
    for ends in (("head", "camera"), ("camera", "head")):
        with pytest.raises(CalibrationError, match="from 'head' to 'base'"):
            tree.lookup(*ends, 151, max_age_ns=50)


NAMES = st.sampled_from("abcd")
STEPS = st.lists(st.tuples(NAMES, NAMES, st.booleans(), st.integers(0, 5)), max_size=12)


@given(STEPS)
def test_what_was_looked_up_before_changes_no_answer(
    steps: list[tuple[str, str, bool, int]],
) -> None:
    """What is remembered of frames that do not move is forgotten when one of them changes."""

    def answers(tree: FrameTree) -> list[object]:
        found: list[object] = []
        for target in "abcd":
            for source in "abcd":
                try:
                    own = tree.lookup(target, source, 3, max_age_ns=1)
                    found.append((own.rotation.tobytes(), own.translation.tobytes()))
                except CalibrationError as error:
                    found.append(str(error))
        return found

    asked, fresh = FrameTree(), FrameTree()
    for number, (parent, child, static, stamp) in enumerate(steps):
        angle = number / 10
        turn = (0.0, 0.0, np.sin(angle), np.cos(angle))
        transform = RigidTransform.from_quaternion_xyzw(turn, (number, 1, 2))
        for tree in (asked, fresh):
            if parent != child:
                tree.set(parent, child, transform, stamp, static=static)
        answers(asked)
    assert answers(asked) == answers(fresh)
