"""ROS 2 nodes of AnySense: thin layers over `perception`, which knows nothing of ROS."""
