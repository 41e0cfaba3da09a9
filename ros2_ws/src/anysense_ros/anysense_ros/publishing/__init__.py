"""The node's outputs: made only when somebody listens; one file per task, and the status."""

from anysense_ros.publishing.outputs import Outputs
from anysense_ros.publishing.topics import Output, TaskPublisher, Topics

__all__ = ["Output", "Outputs", "TaskPublisher", "Topics"]
