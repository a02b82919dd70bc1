#!/usr/bin/env bash
# Set up the environment, then lint, formatting and tests: bash scripts/run_tests.sh [pytest arguments]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/setup.sh
set_up

uv run --no-sync ruff check
uv run --no-sync ruff format --check
# One process per core with one thread each; a file's tests stay together and share what they set up.
export OMP_NUM_THREADS=1
uv run --no-sync pytest -q -n auto --dist loadfile --durations 5 "$@"
