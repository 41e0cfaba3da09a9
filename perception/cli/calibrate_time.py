"""`anysense calibrate time-offset`: by how much the stamps of sensors differ, as a rig's time offsets."""

from __future__ import annotations

import argparse
import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perception.cli.arguments import command_line, give_json, output_file
from perception.cli.calibrate_time_sources import Track, read_tracks
from perception.cli.calibrate_verdicts import UNTRUSTED, tell_left_out
from perception.cli.console import Table, say, step_progress, warn
from perception.cli.parsing import Commands, add_command, real
from perception.errors import ConfigError, names_hint
from perception.extras import require
from perception.frame import check_name
from perception.geometry.rig import Rig, load_rig, save_rig

if TYPE_CHECKING:
    from calibration.timing.offset import TimeOffset

_WITHIN_MS, _MOST_MS = 500.0, 5000.0
_LONG_S, _FAST_PPM = 30.0, 20.0


def add_time_offset(actions: Commands) -> None:
    """Register `calibrate time-offset`."""
    parser = add_command(
        actions,
        "time-offset",
        "by how much the stamps of sensors differ, from how they turned",
        more="Turns of pictures, clouds and gyroscopes are compared; the first sensor's clock counts. What "
        "is found is added to a sensor's stamps. Exit status 3: not to be trusted, no rig is written.",
        example="anysense calibrate time-offset BAG --sensors rgb,lidar --out rig.yaml\n"
        "anysense calibrate time-offset BAG --sensors imu,front --topic imu=/imu/data "
        "--topic front=/front/image_raw --json found.json\n"
        "anysense calibrate time-offset folder:DIR --sensors rgb,thermal",
    )
    parser.add_argument(
        "recording", metavar="BAG", help="bag folder or .mcap file, or a recording as KIND:DIR"
    )
    parser.add_argument(
        "--sensors",
        required=True,
        metavar="NAME,NAME",
        help="two or more; to the clock of the first the others are brought",
    )
    parser.add_argument(
        "--topic",
        action="append",
        default=[],
        metavar="NAME=TOPIC",
        help="of a sensor in a bag: pictures, clouds, or sensor_msgs/Imu (default: /sensors/NAME/...)",
    )
    parser.add_argument(
        "--kind",
        action="append",
        default=[],
        metavar="NAME=KIND",
        help="of a sensor in a bag whose name is none (default: what can read its first message)",
    )
    parser.add_argument(
        "--within-ms",
        type=real(50.0, _MOST_MS),
        default=_WITHIN_MS,
        metavar="MS",
        help="how far stamps may be off",
    )
    parser.add_argument(
        "--out", type=Path, metavar="RIG", help="rig file that exists; the offsets are put into it"
    )
    parser.set_defaults(run=run_time_offset)


def run_time_offset(args: argparse.Namespace) -> int:
    """Find the offsets, write them into the rig, and say what speaks against them."""
    require("calibration", "scipy")
    names = _names(args.sensors)
    rig = _rig(args, names)
    with step_progress() as progress:
        tracks = read_tracks(args, names, progress)
        found = _offsets(tracks, args.within_ms)
    trusted = all(one.trusted for one in found.values())
    if rig is not None and trusted:
        save_rig(_with(rig, names[0], found), args.out)
    written = str(args.out) if rig is not None and trusted else None
    give_json(
        args,
        {
            "recording": args.recording,
            "reference": names[0],
            "rig": written,
            "trusted": trusted,
            "offsets": {name: one.to_dict() for name, one in found.items()},
            "sensors": {name: track.to_dict() for name, track in tracks.items()},
        },
    )
    _show(names[0], found, tracks)
    for name, one in found.items():
        for doubt in one.doubts:
            warn(f"{name}: {doubt}")
    if not trusted:
        warn("not to be trusted" + (f": {args.out} is not written" if rig is not None else ""))
        return UNTRUSTED
    if written:
        say(f"wrote {written}")
    return 0


def _names(text: str) -> list[str]:
    names = [check_name(name.strip(), "--sensors") for name in text.split(",")]
    if len(names) < 2 or len(set(names)) < len(names):
        raise ConfigError(f"'{text}' is not two different sensors or more", where="--sensors")
    return names


def _rig(args: argparse.Namespace, names: list[str]) -> Rig | None:
    """The rig that offsets are put into; the reference may be no part of it, as an IMU is none."""
    if args.out is None:
        return None
    output_file(args.out)
    if not args.out.exists():
        hint = "make it with anysense calibrate extrinsics or convert first"
        raise ConfigError(
            "is no rig that offsets could be put into", where=str(args.out), hint=hint
        )
    rig = load_rig(args.out)
    for name in names[1:]:
        if name not in rig.sensors:
            hint = names_hint(name, rig.sensors)
            raise ConfigError(f"the rig has no sensor '{name}'", where=str(args.out), hint=hint)
    return rig


def _offsets(tracks: dict[str, Track], within_ms: float) -> dict[str, TimeOffset]:
    """By sensor but the first, what is added to its stamps for the first one's clock."""
    from dataclasses import replace

    from calibration.timing.clocks import OTHER_CLOCK_NS
    from calibration.timing.offset import time_offset

    (_, first), *others = tracks.items()
    found = {}
    for name, own in others:
        base, doubts = 0, []
        if first.clock is not None and own.clock is not None:
            apart = own.clock.lag_ns - first.clock.lag_ns
            base = apart if abs(apart) > OTHER_CLOCK_NS else 0
            doubts = _clock_doubts(first, own)
        one = time_offset(first.motion, own.motion, base_ns=base, within_ms=within_ms)
        found[name] = replace(one, doubts=(*one.doubts, *doubts))
    return found


def _clock_doubts(first: Track, own: Track) -> list[str]:
    """What arrivals say against a constant offset."""
    import math

    assert first.clock is not None and own.clock is not None
    doubts = []
    if own.clock.since_boot != first.clock.since_boot:
        which = own.name if own.clock.since_boot else first.name
        doubts.append(
            f"stamps of {which} count from a start, not from 1970: the offset holds until it is started again"
        )
    drift = first.clock.drift_ppm - own.clock.drift_ppm
    sigma = math.hypot(first.clock.drift_sigma_ppm, own.clock.drift_sigma_ppm)
    long = min(first.clock.seconds, own.clock.seconds) >= _LONG_S
    if long and abs(drift) > max(_FAST_PPM, 3 * sigma):
        doubts.append(
            f"by arrivals the offset grows by {drift:+.0f} ppm (sigma {sigma:.0f}): synchronize the clocks"
        )
    return doubts


def _with(rig: Rig, reference: str, found: dict[str, TimeOffset]) -> Rig:
    """The rig with the offsets, which count from the reference's own."""
    from calibration.rigs import with_offsets

    offsets = {name: (one.offset_ns, one.sigma_ns) for name, one in found.items()}
    today = datetime.date.today().isoformat()
    return with_offsets(rig, reference, offsets, date=today, source=command_line())


def _show(reference: str, found: dict[str, TimeOffset], tracks: dict[str, Track]) -> None:
    table = Table("sensor", "offset, ms", "sigma", "drift, ppm", "correlation", "seconds")
    table.add_row(reference, "reference", "", "", "", "")
    for name, one in found.items():
        drift = f"{one.drift_ppm:+.0f} +- {one.drift_sigma_ppm:.0f}"
        values = (f"{one.offset_ns / 1e6:+.2f}", f"{one.sigma_ns / 1e6:.2f}", drift)
        table.add_row(name, *values, f"{one.correlation:.2f}", f"{one.seconds:.0f}")
    table.show()
    say(f"added to a sensor's stamps, its offset brings them to the clock of {reference}")
    left_out: dict[str, str] = {}
    for name, track in tracks.items():
        left_out |= {f"{count} samples of {name}": why for why, count in track.left_out.items()}
    tell_left_out(left_out, _remarks(found, tracks))


def _remarks(found: dict[str, TimeOffset], tracks: dict[str, Track]) -> list[str]:
    remarks: list[Any] = []
    for name, one in found.items():
        if abs(one.offset_ns) > 1_000_000_000:
            far = abs(one.offset_ns) / 1e9
            remarks.append(f"{name} has a clock of its own, {far:.0f} s off")
    remarks += [f"{n}: no times of arrival" for n, t in tracks.items() if t.by_stamps]
    return remarks
