"""The runtime: bundles, engines, health, policy and the pipeline.  Needs neither torch nor ROS."""
