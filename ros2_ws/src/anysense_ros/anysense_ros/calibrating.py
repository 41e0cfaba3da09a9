"""What of the library's calibration wants the extra `calibrate`; see `anysense_ros.library`."""

from __future__ import annotations

try:
    from anysense.calibration.boards import Board, parse_board
    from anysense.calibration.detection import detect, read_gray
    from anysense.calibration.live.choosing import NO_BOARD, Chooser, Look, Rules
    from anysense.calibration.live.drawing import Panel, draw_panels
    from anysense.calibration.live.grouping import Grouper
    from anysense.calibration.live.hints import Wish, wish_of
    from anysense.calibration.live.recording import ViewFolder
    from anysense.calibration.live.sighting import Sighting, sighting_of
    from anysense.calibration.live.solving import Solved, Solver, Source
    from anysense.calibration.parameters import FORMS, form_of
    from anysense.calibration.plates import Plate, find_plates, parse_plate
except ModuleNotFoundError as error:
    if error.name not in ("anysense", "anysense.calibration"):
        raise
    from calibration.boards import Board, parse_board
    from calibration.detection import detect, read_gray
    from calibration.live.choosing import NO_BOARD, Chooser, Look, Rules
    from calibration.live.drawing import Panel, draw_panels
    from calibration.live.grouping import Grouper
    from calibration.live.hints import Wish, wish_of
    from calibration.live.recording import ViewFolder
    from calibration.live.sighting import Sighting, sighting_of
    from calibration.live.solving import Solved, Solver, Source
    from calibration.parameters import FORMS, form_of
    from calibration.plates import Plate, find_plates, parse_plate

__all__ = [
    "FORMS",
    "NO_BOARD",
    "Board",
    "Chooser",
    "Grouper",
    "Look",
    "Panel",
    "Plate",
    "Rules",
    "Sighting",
    "Solved",
    "Solver",
    "Source",
    "ViewFolder",
    "Wish",
    "detect",
    "draw_panels",
    "find_plates",
    "form_of",
    "parse_board",
    "parse_plate",
    "read_gray",
    "sighting_of",
    "wish_of",
]
