"""From a configuration to its recordings and its model, and what a checkpoint keeps of both."""

from __future__ import annotations

from typing import Any

from pydantic import TypeAdapter, ValidationError

from perception.data.base import Recording, RecordingInfo
from perception.data.classes import require_same_classes
from perception.data.joined import Joined
from perception.data.registry import kind_name, open_recording, parse_data_argument
from perception.errors import ConfigError, DataError
from perception.models.heads import half_of
from perception.models.interface import FusionModel
from perception.models.registry import build_model
from perception.training.config import TrainConfig, listed

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
    """The training and validation recordings of a configuration.

    Raises:
        ConfigError, DataError: one cannot be opened, or does not go with the others; it is named.
    """
    source, val_source = config.data.source, config.data.val_source
    if val_source is None:
        train, val = (_opened(config, source, split) for split in ("train", "val"))
    else:
        train, val = (_opened(config, own, "all") for own in (source, val_source))
        require_same_classes(
            train.info, val.info, config.tasks, what="data.source", where="data.val_source"
        )
    if config.data.only is not None:
        for recording in (train, val):
            recording.select(config.data.only)
            if not len(recording):
                raise ConfigError(f"no frame is tagged '{config.data.only}'", where="data.only")
    return train, val


def _opened(config: TrainConfig, sources: str | list[str], split: str) -> Recording:
    """One recording, or several joined."""
    # Options are those of the configured kind: another kind's reader does not know them.
    configured = kind_name(parse_data_argument(listed(config.data.source)[0])[0])
    parts = []
    for source in listed(sources):
        kind, root = parse_data_argument(source)
        options = config.data.options if kind_name(kind) == configured else {}
        parts.append(open_recording(kind, root, split=split, **options))
    return parts[0] if len(parts) == 1 else Joined(parts, listed(sources), config.tasks)


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
