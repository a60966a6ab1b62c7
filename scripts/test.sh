#!/usr/bin/env bash
# Format, lint, types, import contracts, tests. With options, which go to pytest, it is run once.
set -euo pipefail
EXTRAS=dev
source "$(dirname "$0")/environment.sh"

# The report is looked at in a real browser, and jobs run on a real SLURM; without them those tests are
# skipped, with the reason.
MISSING=()
command -v chromium >/dev/null || MISSING+=(chromium)
command -v slurmctld >/dev/null && command -v munged >/dev/null || MISSING+=(slurm-wlm munge)
if [ ${#MISSING[@]} -gt 0 ] && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    apt-get update -qq && DEBIAN_FRONTEND=noninteractive \
        apt-get install -y -qq --no-install-recommends "${MISSING[@]}" >/dev/null || true
fi

ruff format --check .
ruff check .
mypy
lint-imports
if [ $# -gt 0 ]; then
    exec pytest "$@"
fi
# A unit test needs one core, and there is a worker for each. What starts ranks, clusters and browsers
# is run two files at a time: half of its time it starts processes or waits for them.
STATUS=0
pytest tests/unit -n auto --maxprocesses 8 --dist loadfile || STATUS=$?
pytest tests --ignore tests/unit -n 2 --dist loadgroup || STATUS=$?
exit $STATUS
