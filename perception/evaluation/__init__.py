"""Accuracy of a pipeline on recordings: by subset of sensors, by backend, of many bundles; files of boxes."""
