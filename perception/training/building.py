"""From a configuration to its recordings and its model, and what a checkpoint keeps of both."""

from __future__ import annotations

from typing import Any

from pydantic import TypeAdapter, ValidationError

from perception.data.base import Recording, RecordingInfo
from perception.data.classes import require_same_classes
from perception.data.registry import kind_name, open_recording, parse_data_argument
from perception.errors import ConfigError, DataError
from perception.models.heads import half_of
from perception.models.interface import FusionModel
from perception.models.registry import build_model
from perception.training.config import TrainConfig

_INFO = TypeAdapter(RecordingInfo)


def describe_recording(info: RecordingInfo) -> dict[str, Any]:
    """What `recording_info` reads back, as plain values."""
    described: dict[str, Any] = _INFO.dump_python(info, mode="json")
    return described


def recording_info(progress: dict[str, Any]) -> RecordingInfo:
    """What the training data of a checkpoint with this `progress` were.

    Raises:
        DataError: the checkpoint does not say.
    """
    try:
        known = progress["recording"]
        kinds = known.get("modalities", ())  # before sensors had names of their own
        return _INFO.validate_python({"sensors": {kind: kind for kind in kinds}, **known})
    except (KeyError, TypeError, AttributeError, ValidationError) as error:
        raise DataError(
            "the checkpoint does not say what it was trained on", where="progress.recording"
        ) from error


def open_splits(config: TrainConfig) -> tuple[Recording, Recording]:
    """The training and validation recordings of a configuration."""
    kind, root = parse_data_argument(config.data.source)
    options = config.data.options
    if config.data.val_source is None:
        train = open_recording(kind, root, split="train", **options)
        val = open_recording(kind, root, split="val", **options)
    else:
        val_kind, val_root = parse_data_argument(config.data.val_source)
        train = open_recording(kind, root, **options)
        same = kind_name(val_kind) == kind_name(kind)
        # Options are those of the configured kind: another kind's reader does not know them.
        val = open_recording(val_kind, val_root, **(options if same else {}))
        require_same_classes(
            train.info, val.info, config.tasks, what="data.source", where="data.val_source"
        )
    if config.data.only is not None:
        for recording in (train, val):
            recording.select(config.data.only)
            if not len(recording):
                raise ConfigError(f"no frame is tagged '{config.data.only}'", where="data.only")
    return train, val


def build_from_config(config: TrainConfig, info: RecordingInfo, *, pretrained: bool) -> FusionModel:
    """The configured model, with heads for the recording's classes.

    Raises:
        ConfigError: the recording has no classes for a task, lacks a sensor, or has one of another kind;
            or see `build_model`.
    """
    tasks = {task: half_of(task).spec(info) for task in config.tasks}
    if lacking := info.lacking(config.preprocess.kinds):
        raise ConfigError(f"{info.kind} data has {lacking}", where="preprocess")
    return build_model(
        config.model.name,
        config.preprocess,
        tasks,
        pretrained=pretrained and config.model.pretrained,
        options=config.model.options,
    )
