#!/usr/bin/env bash
# The whole pipeline on a real small model. Options go to `msm quickstart` (see its --help).
set -euo pipefail
EXTRAS=gguf,slurm
source "$(dirname "$0")/environment.sh"
exec msm quickstart "$@"
