#!/bin/bash
# Everything that only a GPU can show, see gpu_check.py.  Bounded, and each stage on its own.
#   ANYSENSE_WHEELS   a folder put before Python's path, for packages that a bare machine lacks
cd "$(dirname "$0")/.." || exit 2
export PYTHONPATH="$PWD${ANYSENSE_WHEELS:+:$ANYSENSE_WHEELS}${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1
# CUDA's libraries, where PyTorch brought them: ONNX Runtime looks for them on the library path.
nvidia=$(python3 -c 'import nvidia; print(list(nvidia.__path__)[0])' 2>/dev/null)
if [ -n "$nvidia" ]; then
  for folder in "$nvidia"/*/lib; do LD_LIBRARY_PATH="$folder${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"; done
  export LD_LIBRARY_PATH
fi
exec python3 benchmarks/gpu_check.py "$@"
