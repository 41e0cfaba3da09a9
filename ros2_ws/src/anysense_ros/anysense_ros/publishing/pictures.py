"""Pictures that a bundle's model makes besides."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sensor_msgs.msg import Image

from anysense_ros.conversions import image
from anysense_ros.publishing.topics import Output, TaskPublisher

PREFIX = "images/"


class PicturesPublisher(TaskPublisher):
    """`~/images/<name>`."""

    @property
    def topics(self) -> Mapping[str, Any]:
        """See `TaskPublisher`."""
        return {f"{PREFIX}{name}": Image for name in self.spec.names}

    def publish(self, value: Mapping[str, NDArray[np.uint8]] | None, out: Output) -> None:
        """See `TaskPublisher`."""
        for name, picture in (value or {}).items():
            if out.heard(f"{PREFIX}{name}"):
                kind = "rgb8" if picture.shape[2] == 3 else ""
                out.send(f"{PREFIX}{name}", image(picture, out.header, kind))
