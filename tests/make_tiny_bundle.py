"""Writes tests' tiny bundles to a folder, for tests that run where torch is not installed.

python tests/make_tiny_bundle.py FOLDER: AnyFuse in FOLDER/bundle, the zoo's models in FOLDER/zoo/NAME/bundle,
one with a plug-in's task in FOLDER/heights, two cameras with one encoder beside a LiDAR in FOLDER/stereo, and
four that see the ground from above in FOLDER/ground
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from conftest import export_tiny_bundle
from ground_bundles import ground_bundle
from models.zoo.small import OPTIONS, PICTURES, modalities_for
from small_bundles import SmallBundles

if __name__ == "__main__":
    target = Path(sys.argv[1])
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    export_tiny_bundle(target)
    for name in set(PICTURES) - {"anyfuse"}:
        folder = target / "zoo" / name
        folder.mkdir(parents=True)
        export_tiny_bundle(folder, name, modalities_for(name), False, **OPTIONS.get(name, {}))
    cameras = {"left": ("rgb", "camera"), "right": ("rgb", "camera"), "roof": ("lidar", "cloud")}
    SmallBundles(target).named(cameras, 3, 2, name="stereo")
    ground_bundle(target / "ground")
    SmallBundles(target).with_heights()  # last: the Makefile looks for it
