#!/usr/bin/env bash
# Set up the environment, then lint, formatting and tests.
#
#   bash scripts/run_tests.sh                      all tests but those marked slow
#   bash scripts/run_tests.sh --all                all tests; CI=true does the same
#   bash scripts/run_tests.sh tests/test_x.py      or any other arguments of pytest: those tests, slow ones too
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/setup.sh
set_up

uv run --no-sync ruff check
uv run --no-sync ruff format --check
# One process per core with one thread each; a file's tests stay together and share what they set up. The longest files
# come first, so that no core is left with one of them at the end.
export OMP_NUM_THREADS=1
files=(tests/test_{study_kills,demo,grpo_train,sft_generated,repository,long_runs,readme,train,shard_run,bench_pretrain}.py)
for file in tests/test_*.py; do
    [[ " ${files[*]} " == *" $file "* ]] || files+=("$file") # pytest forgets the order when it is given the folder too
done
case "${1:-}" in
    "") [[ ${CI:-} == true ]] && set -- "${files[@]}" || set -- -m "not slow" "${files[@]}" ;;
    --all) set -- "${files[@]}" "${@:2}" ;;
esac
uv run --no-sync pytest -q -n auto --dist loadfile --no-loadscope-reorder --durations 5 "$@"
