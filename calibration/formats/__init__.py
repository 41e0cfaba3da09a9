"""Calibration files of others, read into rigs and written from them: one file for each format.

`registry` recognises a file by what is in it.  Rotations are right-handed, lengths metres, angles radians,
unless the format says otherwise; each file says which way its transforms lead.
"""
