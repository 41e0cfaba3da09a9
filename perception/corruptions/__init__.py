"""Sensors that fail on purpose: content faults by severity, delivery faults, and schedules of both.

from perception.corruptions import FaultSchedule, FaultInjector, corrupt, faults_of

spoilt = corrupt(sample, "motion_blur", severity=3, seed=0)
schedule = FaultSchedule.read("faults.yaml").check(recording.info.kinds)
"""

from perception.corruptions.content import (
    corrupt,
    corrupt_grid,
    faults_of,
    scenario_fault,
    severity_of,
)
from perception.corruptions.delivery import DELIVERY, Active, Channel, Delivered
from perception.corruptions.injector import FaultInjector
from perception.corruptions.schedule import Event, FaultSchedule
from perception.sensors.faults import Severity

__all__ = [
    "DELIVERY",
    "Active",
    "Channel",
    "Delivered",
    "Event",
    "FaultInjector",
    "FaultSchedule",
    "Severity",
    "corrupt",
    "corrupt_grid",
    "faults_of",
    "scenario_fault",
    "severity_of",
]
