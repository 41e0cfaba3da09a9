"""The kinds of sensors: all that is known of one lies in one place, its record (`kind.SensorKind`).

`names`, `kind` and `registry` lie on the floor, beside `frame`; a folder each holds what is ours.
"""
