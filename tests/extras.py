"""Installs the wheel with each extra by itself and runs that extra's commands, far from the source.

    python3.11 tests/extras.py build/extras [EXTRA ...]

Every extra gets a bare environment with the core and nothing else of ours.  What a command lacks there
must be one line with the pip command, and exit status 2.  `wheel` is the core once more, as somebody meets it
who has the wheel alone: no home, no locale, a folder with modules that are called as ours might be.
Uses the standard library only.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
import venv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TORCH = os.environ.get("TORCH", "torch==2.13.0")
"""The CPU build where the index has it under this version; newer ones may pull CUDA packages."""

EXTRAS = (
    "wheel",
    "core",
    "train",
    "export",
    "sim",
    "viz",
    "bags",
    "view",
    "rerun",
    "openvino",
    "sign",
    "tensorrt-rtx",
    "completion",
    "calibrate",
)
"""All but `tensorrt`, which is built for a GPU's driver, and those that are made of these (and weights)."""

RECORDING = """
import sys
from pathlib import Path
import cv2, numpy as np, yaml
root = Path(sys.argv[1])
rng = np.random.default_rng(0)
info = dict(schema=1, name="tiny", modalities=["rgb", "depth"], height=64, width=96)
info["seg_classes"] = [dict(id=i, name=f"c{i}", color=[i * 20, 2, 3]) for i in range(3)]
for name in ("rgb", "depth", "labels"):
    (root / name).mkdir(parents=True)
(root / "dataset.yaml").write_text(yaml.safe_dump(info))
rows = ["id,stamp_ns,tags"]
for i in range(12):
    rows.append(f"f{i:03},{i * 100_000_000},")
    coarse = rng.integers(0, 255, (8, 12, 3), np.uint8)
    cv2.imwrite(str(root / "rgb" / f"f{i:03}.png"), cv2.resize(coarse, (96, 64)))
    depth = cv2.resize(rng.integers(800, 4000, (8, 12)).astype(np.uint16), (96, 64))
    cv2.imwrite(str(root / "depth" / f"f{i:03}.png"), depth)
    cv2.imwrite(str(root / "labels" / f"f{i:03}.png"), rng.integers(0, 3, (64, 96), np.uint8))
(root / "frames.csv").write_text("\\n".join(rows) + "\\n")
"""

BOARDS = """
import json, sys
from pathlib import Path
import cv2, numpy as np
root = Path(sys.argv[1])
root.mkdir()
lens = np.array([[520.0, 0, 319.5], [0, 520.0, 239.5], [0, 0, 1]])
squares = np.kron(np.indices((7, 9)).sum(0) % 2, np.ones((40, 40))) * 200 + 30
board = np.pad(squares, 40, constant_values=250).astype(np.uint8)
to_board = np.array([[0.001, 0, -0.2], [0, 0.001, -0.16], [0, 0, 1]])  # a pixel is a millimetre
for i in range(14):
    turn = cv2.Rodrigues(np.array([0.5 * np.sin(i), 0.5 * np.cos(1.7 * i), 0.2 * np.sin(3.0 * i)]))[0]
    place = [0.12 * np.sin(2.1 * i), 0.08 * np.cos(1.3 * i), 0.55 + 0.015 * i]
    seen = lens @ np.column_stack([turn[:, 0], turn[:, 1], place]) @ to_board
    view = cv2.warpPerspective(board, seen, (640, 480), flags=cv2.INTER_AREA, borderValue=120)
    cv2.imwrite(str(root / f"{i:02}.png"), cv2.GaussianBlur(view, (3, 3), 0))
points = [f"{4000 + 25 * i},{290 + i}" for i in range(0, 40, 4)]
(root / "points.csv").write_text("\\n".join(["counts,kelvin", *points]))
car = dict(sample=0, name="car", center=[9, 0, 0], wlh=[2, 4, 2], yaw=0, velocity=[0, 0])
(root / "boxes.json").write_text(json.dumps(dict(truth=[car], predictions=[dict(car, score=0.5)])))
"""

CONFIG = """
name: tiny
tasks: [segmentation]
model: {name: anyfuse, pretrained: false, options: {width: 0.25, decoder_width: 16}}
data: {source: "folder:DATA"}
preprocess: {modalities: [rgb, depth], grid: {height: 64, width: 96}}
epochs: 1
resolution: [{crop: [64, 96], scale: [1.0, 1.0], batch: 2}]
optimizer: {warmup_epochs: 0}
validate_every: 1
"""


@dataclass(frozen=True)
class Case:
    """A command, and what it must say: nothing in particular (exit 0), or which extra is missing."""

    command: str
    missing: str = ""


TRAIN = "train CONFIG --out OUT/run --device cpu --threads 1 --smoke"
EXPORT = "export TINY --threads 1"
HALF = f"{EXPORT} --precision fp16 --out OUT/half"
PLANS = f"{EXPORT} --engine tensorrt-rtx --compute-capability 8.6 --build-only"
VIEW = "view --data folder:DATA --bundle TINY --device cpu --out OUT/view"
RECORD = "record --data folder:DATA --out OUT/bag"
INTRINSICS = (
    "calibrate intrinsics BOARDS --board chessboard:8x6:0.04 --model plumb_bob --out OUT/rig.yaml"
)
THERMAL = "calibrate thermal --points BOARDS/points.csv --out OUT/values.yaml"
METRICS = "metrics nuscenes --truth BOARDS/boxes.json --predictions BOARDS/boxes.json"
BENCH = "bench TINY --frames 2 --warmup 1 --threads 1"

CASES: dict[str, list[Case]] = {
    "wheel": [
        Case("--version"),
        Case("bundles list"),
        Case("bundles list --json OUT/bundles.json"),
        Case("bundle verify sim-rgbdtl"),
        Case("bundle info sim-stereo"),
        Case("doctor --json OUT/doctor.json"),
        Case("data info folder:DRIVE"),
        Case("demo --out OUT/demo"),
        Case("run --bundle sim-rgbdtl --rgb DRIVE/rgb/000000.jpg --out OUT/run"),
        Case("models", "train"),
        Case("train sim-rgbdtl --smoke", "train"),
        Case("export sim-rgbdtl --precision fp16 --out OUT/half", "export"),
        Case("demo --simulate --out OUT/simulated", "sim"),
    ],
    "core": [
        Case("--help"),
        Case("--version"),
        Case("doctor --json OUT/doctor.json"),
        Case("bundle verify TINY"),
        Case("bundle info sim-rgbdtl"),
        Case("data check DATA"),
        Case(f"{BENCH} --json OUT/bench.json"),
        Case("eval TINY --data folder:DATA --all-subsets --device cpu --json OUT/eval.json"),
        Case("run --bundle TINY --rgb DATA/rgb/f000.png --out OUT/run"),
        Case("bench-zoo TINY --data folder:DATA --frames 2 --out OUT/zoo.md"),
        Case("demo --data folder:DATA --bundle TINY --device cpu --out OUT/own"),
        Case(f"{METRICS} --json OUT/metrics.json"),
        Case("models", "train"),
        Case(TRAIN, "train"),
        Case("search RUN --data folder:DATA --out OUT/search", "train"),
        Case("export RUN --out OUT/bundle", "train"),
        Case(HALF, "export"),
        Case(PLANS, "export"),
        Case("demo --out OUT/demo"),
        Case("demo --simulate --out OUT/simulated", "sim"),
        Case(RECORD, "bags"),
        Case("replay DATA --bundle TINY --out OUT/replay", "bags"),
        Case("batch JOB", "fleet"),
        Case(f"{VIEW}.mcap", "view"),
        Case(f"{VIEW}.rrd", "rerun"),
        Case(f"{BENCH} --backends openvino", "openvino"),
        Case("bundle keygen OUT/key", "sign"),
        Case("bundle verify TINY --trust DATA", "sign"),
        Case("completion bash", "completion"),
        Case(INTRINSICS, "calibrate"),
        Case("calibrate time-offset folder:DATA --sensors rgb,thermal", "calibrate"),
        Case(THERMAL, "calibrate"),
    ],
    "calibrate": [
        Case(f"{INTRINSICS} --json OUT/lens.json"),
        Case(THERMAL),
        Case("calibrate apply OUT/values.yaml DATA/depth OUT/kelvin"),
    ],
    "completion": [Case(f"completion {shell}") for shell in ("bash", "zsh", "fish")],
    "train": [
        Case("models"),
        Case(TRAIN),
        Case("export OUT/run --out OUT/bundle"),
        Case("average OUT/run OUT/run --out OUT/mean --device cpu --threads 1"),
        Case("distill CONFIG --teacher RUN --out OUT/student --device cpu --threads 1 --smoke"),
        Case(f"{EXPORT} --subset single --out OUT/single"),
        Case("export RUN --precision fp16 --out OUT/half --threads 1"),
    ],
    "export": [
        Case(HALF),
        Case(f"{EXPORT} --precision int8 --calib-data folder:DATA --max-error 0.9 --out OUT/int8"),
        Case(f"{EXPORT} --subset single rgb --out OUT/single"),
        Case(f"{EXPORT} --serve triton --uint8-rgb --out OUT/triton"),
        Case(f"{EXPORT} --serve isaac-ros --out OUT/isaac"),
        Case(f"{EXPORT} --report OUT/report --data folder:DATA --limit 2 --bench-frames 1"),
        Case("export RUN --out OUT/bundle", "train"),
        Case(PLANS, "tensorrt-rtx"),
        Case(f"{EXPORT} --engine openvino", "openvino"),
    ],
    "sim": [
        Case("data make-sim --out OUT/sim --kind drive --frames 10 --seed 7"),
        Case("data make-sim --out OUT/round --kind surround --frames 2 --size 64x48"),
        Case("demo --bundle sim-rgbdtl --frames 10 --device cpu --out OUT/demo"),
    ],
    "viz": [Case("demo --data folder:DATA --bundle TINY --device cpu --out OUT/demo")],
    "bags": [Case(RECORD), Case("replay OUT/bag --bundle TINY --device cpu --out OUT/replay")],
    "view": [Case(f"{VIEW}.mcap"), Case(f"{VIEW}.rrd", "rerun")],
    "rerun": [Case(f"{VIEW}.rrd"), Case(f"{VIEW}.mcap", "view")],
    "openvino": [
        Case(f"{BENCH} --backends openvino"),
        Case("run --bundle TINY --rgb DATA/rgb/f000.png --device openvino --out OUT/run"),
        Case(f"{EXPORT} --engine openvino", "export"),
    ],
    "sign": [
        Case("bundle keygen OUT/key"),
        Case("bundle sign TINY --key OUT/key"),
        Case("bundle verify TINY --key OUT/key.pub"),
        Case(f"{BENCH} --device cpu --trust-store OUT/key.pub"),
    ],
    "tensorrt-rtx": [
        Case(PLANS),
        Case("bundle verify TINY"),
        Case(f"{EXPORT} --precision int8 --calib-data folder:DATA --max-error 0.9 --out OUT/int8"),
        Case("export OUT/int8 --engine tensorrt-rtx --compute-capability 8.6 --build-only"),
        Case("export RUN --out OUT/bundle", "train"),
    ],
}
"""By extra, what is run where it is the only one.

TINY, RUN, CONFIG and DATA are a small bundle, its run, that run's configuration and a recording; BOARDS are
pictures of a chessboard, a table of counts and kelvin, and boxes; DRIVE is the demo's; OUT a new folder.
"""

MADE = ("TINY", "RUN", "CONFIG", "DATA", "BOARDS")
"""What `Workshop.prepare` makes."""

MOST_MB = 400
"""Of all that the core needs."""

ALIAS = """
import sys
import anysense, perception
assert anysense.Pipeline is perception.Pipeline, anysense.Pipeline
assert sorted(anysense.__all__) == sorted(perception.__all__)
from anysense.calibration.camera_info import load_camera_info
import anysense.export.bundle_folder
assert not {"export", "calibration"} & set(sys.modules), "the names in the wheel are common ones"
pipeline = anysense.Pipeline.load("sim-stereo", "cpu")
assert pipeline.sensors == ("depth", "left", "right"), pipeline.sensors
"""
"""What Python sees of the wheel; run where export.py and calibration.py are somebody's scripts."""


class Workshop:
    """Environments, a wheel and what the commands are run on, in one folder.

    Args:
        folder: made anew.
    """

    def __init__(self, folder: Path) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        self.folder = folder.resolve()
        self.data, self.tiny = self.folder / "data", self.folder / "tiny"
        self.boards, self.config = self.folder / "boards", self.folder / "tiny.yaml"
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "ANYSENSE"))}
        self.environment = {
            **kept,
            "ANYSENSE_CACHE": str(self.folder / "cache"),
            "OMP_NUM_THREADS": "1",
        }
        self.base = self.folder / "base"
        venv.create(self.base, with_pip=True)
        self._pip(self.base, "wheel", "--no-deps", "-w", str(self.folder), str(ROOT))
        (self.wheel,) = self.folder.glob("*.whl")
        self._pip(self.base, "install", str(self.wheel))
        self._pip(self.base, "uninstall", "-y", "anysense")  # its requirements stay

    def install(self, extra: str) -> Path:
        """An environment with one extra; returns its folder."""
        place = self.folder / extra
        # Links instead of installing the core ten times; pip replaces files, it does not write into them.
        shutil.copytree(self.base, place, copy_function=os.link, symlinks=True)
        if extra == "train":
            self._pip(place, "install", TORCH)
        bare = extra in ("core", "wheel")
        wanted = str(self.wheel) if bare else f"{self.wheel}[{extra}]"
        self._pip(place, "install", wanted)
        self._pip(place, "check")
        return place

    def _pip(self, place: Path, *arguments: str) -> None:
        command = [place / "bin/python", "-m", "pip", "--quiet", "--disable-pip-version-check"]
        done = subprocess.run(
            [*command, *arguments],
            capture_output=True,
            text=True,
            cwd=self.folder,
            env=self.environment,
        )
        if done.returncode:
            sys.exit(f"pip {' '.join(arguments)}:\n{done.stdout}{done.stderr}")

    def run(self, place: Path, command: str, out: Path) -> subprocess.CompletedProcess[str]:
        """Run `anysense` of an environment in a folder that is not the source's."""
        words = {
            "TINY": place / "tiny",
            "RUN": self.folder / "run",
            "CONFIG": self.config,
            "DATA": self.data,
            "BOARDS": self.boards,
            "DRIVE": self.drive(place),
            "OUT": out,
        }

        def filled(argument: str) -> str:
            head, colon, path = argument.rpartition(":")
            first, slash, rest = path.partition("/")
            for ending in ("", ".mcap", ".rrd"):
                if first.endswith(ending) and first.removesuffix(ending) in words:
                    first = f"{words[first.removesuffix(ending)]}{ending}"
                    break
            return head + colon + first + slash + rest

        return self.execute([place / "bin/anysense", *map(filled, command.split())], place)

    def execute(self, words: Sequence[str | Path], place: Path) -> subprocess.CompletedProcess[str]:
        """Run a program as `run` does."""
        alone = place.name == "wheel"
        return subprocess.run(
            words,
            capture_output=True,
            text=True,
            cwd=place / "elsewhere" if alone else self.folder,
            env={"PATH": "/usr/bin:/bin", "LC_ALL": "C"} if alone else self.environment,
            timeout=300,
        )

    @staticmethod
    def drive(place: Path) -> Path:
        """The drive that comes with the wheel."""
        packages = next(place.glob("lib/python3*/site-packages"))
        return packages / "anysense/recordings/simulated_drive"

    def prepare(self) -> None:
        """The recording, and a small bundle that the extra `train` makes of it."""
        place = self.install("train")
        for script, made in ((RECORDING, self.data), (BOARDS, self.boards)):
            subprocess.run([place / "bin/python", "-c", script, made], check=True)
        self.config.write_text(CONFIG.replace("DATA", str(self.data)))
        for command in (
            f"train CONFIG --out {self.folder}/run --device cpu --threads 1",
            f"export RUN --out {self.tiny}",
        ):
            done = self.run(place, command, self.folder)
            if done.returncode:
                sys.exit(f"anysense {command}:\n{done.stderr}")


def faults(workshop: Workshop, extra: str) -> Iterator[str]:
    """Install an extra and run its commands; what is wrong, one text each."""
    place = workshop.folder / extra
    if not place.exists():
        workshop.install(extra)
    if workshop.tiny.exists():
        shutil.copytree(workshop.tiny, place / "tiny")
    if extra == "wheel":
        yield from wheel_faults(workshop, place)
    out = place / "out"
    out.mkdir()
    for case in CASES[extra]:
        done = workshop.run(place, case.command, out)
        lines = done.stderr.strip().splitlines()
        if not case.missing:
            if done.returncode:
                yield f"{case.command}: exit {done.returncode}: {done.stderr}"
        elif (
            done.returncode != 2
            or len(lines) != 1
            or f"pip install 'anysense[{case.missing}]'" not in lines[0]
        ):
            yield f"{case.command}: exit {done.returncode}, not one line with its extra: {done.stderr}"


def wheel_faults(workshop: Workshop, place: Path) -> Iterator[str]:
    """What is wrong with the wheel, seen from Python and on the disk."""
    elsewhere = place / "elsewhere"
    elsewhere.mkdir()
    for name in ("export", "calibration"):
        (elsewhere / f"{name}.py").write_text("raise SystemExit('this is a script of the user')")
    python = place / "bin/python"
    for words in (["-c", ALIAS], ["-m", "anysense", "--version"]):
        done = workshop.execute([python, *words], place)
        if done.returncode:
            yield f"python {words[0]}: {done.stdout}{done.stderr}"
    packages = next(place.glob("lib/python3*/site-packages"))
    tools = ("pip", "setuptools", "pip-", "setuptools-", "__pycache__")
    files = (f for p in packages.iterdir() if not p.name.startswith(tools) for f in p.rglob("*"))
    size = sum(f.stat().st_size for f in files if f.is_file()) / 1e6
    print(f"{'':>14}  {size:.0f} MB installed, the wheel {workshop.wheel.stat().st_size / 1e6:.1f}")
    if size > MOST_MB:
        yield f"{size:.0f} MB are installed, at most {MOST_MB} should be"


def main(folder: Path, extras: list[str]) -> int:
    """Try the extras; exit status 1 when a command fails."""
    workshop = Workshop(folder)
    if any(word in case.command for extra in extras for case in CASES[extra] for word in MADE):
        workshop.prepare()
    failed = 0
    for extra in extras:
        start = time.monotonic()
        found = list(faults(workshop, extra))
        failed += len(found)
        count = len(CASES[extra])
        told = f"{count - len(found)} of {count} commands, {time.monotonic() - start:.0f} s"
        print(f"{extra:>14}: {told}", flush=True)
        for fault in found:
            print(f"    {fault.strip()}", flush=True)
        if not found:
            shutil.rmtree(folder / extra)
    return 1 if failed else 0


if __name__ == "__main__":
    chosen = sys.argv[2:] or list(EXTRAS)
    sys.exit(main(Path(sys.argv[1]), chosen))
