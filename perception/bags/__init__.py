"""ROS 2 bags (MCAP, rosbag2) without ROS: reading and writing sensor messages through `rosbags`."""
