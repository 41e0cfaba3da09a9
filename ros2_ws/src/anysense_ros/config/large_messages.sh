# Environment for large messages; sourced by env.sh, and set by the launch files in the same words.
_config="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
export RMW_IMPLEMENTATION="${RMW_IMPLEMENTATION:-rmw_fastrtps_cpp}"
# A profile of one's own is taken as ROS takes it, this one with what it says of queues.
case "${ROS_DISTRO:-}" in
    humble | jazzy) _profiles=FASTRTPS_DEFAULT_PROFILES_FILE ;;
    *) _profiles=FASTDDS_DEFAULT_PROFILES_FILE ;;
esac
[ -n "${!_profiles:-}" ] || export RMW_FASTRTPS_USE_QOS_FROM_XML="${RMW_FASTRTPS_USE_QOS_FROM_XML:-1}"
export "$_profiles=${!_profiles:-$_config/fastdds.xml}"
# Keep freed image buffers instead of giving them back to the system and faulting them in anew.
export MALLOC_MMAP_THRESHOLD_="${MALLOC_MMAP_THRESHOLD_:-268435456}"
export MALLOC_TRIM_THRESHOLD_="${MALLOC_TRIM_THRESHOLD_:-536870912}"
export MALLOC_TOP_PAD_="${MALLOC_TOP_PAD_:-67108864}"
# Threads come and go with the lifecycle: what one frees, the next is to find again.
export MALLOC_ARENA_MAX="${MALLOC_ARENA_MAX:-2}"
unset _config _profiles
