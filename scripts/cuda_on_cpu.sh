#!/usr/bin/env bash
# The CUDA path on a GPU that is EMULATED on a CPU: real Transformer Engine classes, no kernel.
# Options go to pytest; without a path: tests/cuda_on_cpu. `--python 3.12` has megatron-core 0.19.
set -euo pipefail
EXTRAS=dev
source "$(dirname "$0")/environment.sh"

# Beside the environment and not in it: megatron-core takes Transformer Engine where it finds it.
NEEDS=tests/cuda_on_cpu/requirements.txt
SITE="$VENV-cuda-on-cpu"
if ! cmp -s "$NEEDS" "$SITE/.installed"; then
    rm -rf "$SITE"
    python -m pip install --quiet --disable-pip-version-check \
        --target "$SITE" --no-deps --requirement "$NEEDS"
    cp "$NEEDS" "$SITE/.installed"
fi

export CUDA_ON_CPU="${CUDA_ON_CPU:-H100}"
export PYTHONPATH="$PWD/tests/cuda_on_cpu/start:$PWD/$SITE:$PWD"
HAS_PATH=no
for option in "$@"; do
    [ ! -e "${option%%::*}" ] || HAS_PATH=yes
done
[ "$HAS_PATH" = yes ] || set -- tests/cuda_on_cpu "$@"
exec pytest "$@"
