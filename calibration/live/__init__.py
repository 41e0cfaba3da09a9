"""Recording a board live: which views are worth taking, what is still wanted, and the fit of what was taken.

Knows nothing of where pictures come from: the ROS node `calibrate` is one that hands them in.
"""
