"""AnySense under its own name: `import anysense` gives what `import perception` gives.

`anysense.export` and `anysense.calibration` are the packages `export` and `calibration` of the source tree:
in a wheel they lie here, as names so common would collide with others' in site-packages.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import perception
from perception import __version__ as __version__

if TYPE_CHECKING:
    from perception import KINDS as KINDS
    from perception import MODALITIES as MODALITIES
    from perception import Alignment as Alignment
    from perception import AnySenseError as AnySenseError
    from perception import Bundle as Bundle
    from perception import Collector as Collector
    from perception import Detections as Detections
    from perception import Frame as Frame
    from perception import Listener as Listener
    from perception import Pipeline as Pipeline
    from perception import Policy as Policy
    from perception import Result as Result
    from perception import Sample as Sample
    from perception import SensorTiming as SensorTiming
    from perception import SensorWarning as SensorWarning
    from perception import Stream as Stream
    from perception import StreamSettings as StreamSettings
    from perception import sample_of as sample_of

_MOVED = ("export", "calibration")


def __getattr__(name: str) -> Any:
    if name not in perception.__all__:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    return getattr(perception, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *perception.__all__})


__all__ = [*perception.__all__]


class _Same(Loader):
    """Loads a module by giving the one that is there under another name."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.spec: ModuleSpec | None = None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        module = import_module(self.name)
        self.spec = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        module.__spec__ = self.spec  # the import system has put the other name's there


class _SourceTree(MetaPathFinder):
    """Finds `anysense.export` in the source tree, where it is `export`.

    Asked before all others, which would find the files of its modules and load them once more.
    """

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        top, _, name = fullname.partition(".")
        if top != __name__ or name.split(".")[0] not in _MOVED:
            return None
        return ModuleSpec(fullname, _Same(name))


if not Path(__file__).with_name(_MOVED[0]).is_dir():
    sys.meta_path.insert(0, _SourceTree())
