"""Sensors that fail on purpose: content faults by severity, delivery faults, and schedules of both."""
