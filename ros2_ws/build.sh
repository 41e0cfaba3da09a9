#!/usr/bin/env bash
# Sets up ROS 2 from pip wheels in a virtual environment and builds the workspace with colcon.
# Not needed where ROS 2 is installed with apt: there, `colcon build` in this folder does.
#
#   WHEELS     kilted or jazzy                      (kilted)
#   ROS_VENV   virtual environment to make or use   (ros2_ws/.venv, for jazzy ros2_ws/.venv-jazzy)
#   ROS_COLCON where colcon builds                  (ros2_ws/.colcon, for jazzy ros2_ws/.colcon-jazzy)
#   PYTHON     interpreter it is made with          (python3.11)
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
wheels="${WHEELS:-kilted}"
requirements="$here/requirements-$wheels.txt"
[ -f "$requirements" ] || {
    echo "ros2_ws/build.sh: no wheels of '$wheels' are known; kilted or jazzy" >&2
    exit 2
}
suffix="-$wheels"
[ "$wheels" = kilted ] && suffix=""
venv="${ROS_VENV:-$here/.venv$suffix}"
colcon_folder="${ROS_COLCON:-$here/.colcon$suffix}"
unset PYTHONHOME AMENT_PREFIX_PATH CMAKE_PREFIX_PATH COLCON_PREFIX_PATH _ROS_WHEELS_BOOTSTRAP_COMPLETE

[ "$(uname -m)" = x86_64 ] || {
    echo "ros2_ws/build.sh: the wheels are for x86_64 only; install ROS 2 with apt and run colcon build" >&2
    exit 2
}
[ -x "$venv/bin/python" ] || "${PYTHON:-python3.11}" -m venv "$venv"

wanted="$(cat "$requirements" "$here/../pyproject.toml" | sha256sum)"
if [ "$(cat "$venv/.anysense-ros" 2>/dev/null)" != "$wanted" ]; then
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check \
        -r "$requirements" -e "$here/..[ros]"
    # Two packages install a module `lark`; the generators need lark-parser's.
    if "$venv/bin/python" -m pip show --quiet lark 2>/dev/null; then
        "$venv/bin/python" -m pip uninstall --quiet --yes lark
        "$venv/bin/python" -m pip install --quiet --disable-pip-version-check \
            --force-reinstall --no-deps lark-parser==0.12.0
    fi
    echo "$wanted" > "$venv/.anysense-ros"
fi

# The wheels' CMake targets name the Python that they were built with: name this one instead.
include="$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_paths()["include"])')"
numpy="$("$venv/bin/python" -c 'import numpy; print(numpy.get_include())')"
{ grep -rlE '/opt/python/cp[0-9]+' "$venv"/share --include='*.cmake' || true; } | xargs -r sed -i -E \
    -e "s#/opt/python/cp[0-9]+-cp[0-9]+/lib/python[0-9.]+/site-packages/numpy/_core/include#$numpy#g" \
    -e "s#/opt/python/cp[0-9]+-cp[0-9]+/include/python[0-9.]+#$include#g"

export PATH="$venv/bin:$PATH" VIRTUAL_ENV="$venv"
export AMENT_PREFIX_PATH="$venv" CMAKE_PREFIX_PATH="$venv"

build() { # NAME, then the paths of its packages
    local base="$colcon_folder/$1"
    shift
    colcon --log-base "$base/log" build --base-paths "$@" --build-base "$base/build" \
        --install-base "$base/install" --event-handlers console_direct- desktop_notification- \
        --cmake-args -DBUILD_TESTING=OFF -DCMAKE_SUPPRESS_DEVELOPER_WARNINGS=1 "-DPython3_EXECUTABLE=$venv/bin/python"
}

missing=()
for name in tf2_msgs vision_msgs; do
    [ -d "$venv/share/$name" ] || missing+=("$here/underlay/$name")
done
if [ ${#missing[@]} -gt 0 ]; then
    definitions="$(cat "$here"/underlay/*/CMakeLists.txt "$here"/underlay/*/msg/*.msg | sha256sum)"
    stamp="$colcon_folder/underlay/definitions"
    if [ "$(cat "$stamp" 2>/dev/null)" != "$definitions" ]; then
        build underlay "${missing[@]}"
        echo "$definitions" > "$stamp"
    fi
    # colcon's scripts read variables that may not be set.
    set +u
    source "$colcon_folder/underlay/install/setup.bash"
    set -u
fi
build overlay "$here/src"
echo "built; source ros2_ws/env.sh to use it"
