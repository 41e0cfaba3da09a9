# Source this in bash: the ROS 2 of ros2_ws/.venv with this workspace, and settings for large messages.
# With WHEELS=jazzy that of ros2_ws/.venv-jazzy.
# With ROS 2 from apt, source /opt/ros/$ROS_DISTRO/setup.bash and install/setup.bash instead.
_ws="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
_suffix="${WHEELS:+-$WHEELS}"
[ "$_suffix" = -kilted ] && _suffix=""
export VIRTUAL_ENV="${ROS_VENV:-$_ws/.venv$_suffix}"
_colcon="${ROS_COLCON:-$_ws/.colcon$_suffix}"
if [ ! -f "$_colcon/overlay/install/setup.bash" ]; then
    echo "ros2_ws/env.sh: the workspace is not built; run 'make ros'" >&2
    return 2 2>/dev/null || exit 2
fi
unset _ROS_WHEELS_BOOTSTRAP_COMPLETE
export ROS_DISTRO="${WHEELS:-kilted}" # wheels do not say it; settings that follow depend on it
export PATH="$VIRTUAL_ENV/bin:$PATH"
export AMENT_PREFIX_PATH="$VIRTUAL_ENV" CMAKE_PREFIX_PATH="$VIRTUAL_ENV"
for _layer in underlay overlay; do
    [ -f "$_colcon/$_layer/install/setup.bash" ] && source "$_colcon/$_layer/install/setup.bash"
done
source "$_ws/src/anysense_ros/config/large_messages.sh"
unset _ws _layer _suffix _colcon
