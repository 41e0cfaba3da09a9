"""Calibration: reading the calibration that others made, into `perception.geometry` types."""
