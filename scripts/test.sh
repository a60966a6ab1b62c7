#!/usr/bin/env bash
# Format, lint, types, import contracts, tests. Options go to pytest.
set -euo pipefail
EXTRAS=dev
source "$(dirname "$0")/environment.sh"

# The report is looked at in a real browser; without one those tests are skipped, with the reason.
if ! command -v chromium >/dev/null && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium >/dev/null || true
fi

ruff format --check .
ruff check .
mypy
lint-imports
pytest "$@"
