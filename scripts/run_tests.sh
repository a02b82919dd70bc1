#!/usr/bin/env bash
# Set up the environment, then lint, formatting and tests: bash scripts/run_tests.sh [pytest arguments]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/setup.sh
set_up

uv run --no-sync ruff check
uv run --no-sync ruff format --check
# One process per core with one thread each; a file's tests stay together and share what they set up. The longest files
# come first, so that no core is left with one of them at the end.
export OMP_NUM_THREADS=1
longest=(tests/test_{demo,readme,long_runs,train,shard_run,bench_pretrain,sft}.py)
[[ $# -gt 0 ]] || set -- "${longest[@]}" tests
uv run --no-sync pytest -q -n auto --dist loadfile --no-loadscope-reorder --durations 5 "$@"
