#!/usr/bin/env bash
# A study: the pipeline of the demo for several paired seeds, and one report over all of them.
#
#   bash scripts/run_study.sh scripts/configs/study_cpu.yaml
#   bash scripts/run_study.sh scripts/configs/study_cpu.yaml --print-jobs       one command per seed, for a cluster
#
# Seed after seed, both conditions of each, so that the first seed's report is there early. Called again it goes on
# where it stopped. Two calls in one folder at once: the second one says so and ends.
#
#   --output-dir DIR    where the study goes (outputs/ and the config's name)
#   --only-seed N       run only this seed of the config; the study's report needs all
#   --print-jobs        print the commands that run one seed each, and run nothing
set -euo pipefail
caller=$PWD
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/setup.sh
source scripts/stages.sh
source scripts/pipeline.sh

# -- arguments --------------------------------------------------------------------------------------------------------
config="" root="" only="" print_jobs=no force=no dry_run=no
usage() { sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' scripts/run_study.sh; }
while [[ $# -gt 0 ]]; do
    case "$1" in
        --print-jobs) print_jobs=yes ;;
        --output-dir | --only-seed)
            [[ $# -ge 2 ]] || fail "$1 needs a value"
            case "$1" in --output-dir) root=$2 && [[ $root == /* ]] || root=$caller/$root ;; --only-seed) only=$2 ;; esac
            shift
            ;;
        -h | --help) usage && exit 0 ;;
        -*) fail "unknown argument $1; see bash scripts/run_study.sh --help" ;;
        *) config=$1 && [[ $config == /* || ! -e $caller/$config ]] || config=$caller/$config ;;
    esac
    shift
done
[[ -n $config ]] || fail "no config given, such as scripts/configs/study_cpu.yaml"
set_up
settings=$(uv run --no-sync python scripts/study.py --config "$config")
eval "$settings" # size=..., seeds=(...), data_seed=..., gsm8k=..., text=..., flags_...=..., quoted by study.py
root=${root:-outputs/$(basename "$config" .yaml)}
[[ -z $only || ($only =~ ^[0-9]+$ && " ${seeds[*]} " == *" $only "*) ]] || fail "--only-seed $only: $config has the seeds ${seeds[*]}"
if [[ $print_jobs == yes ]]; then
    for seed in "${seeds[@]}"; do
        printf '%q ' bash scripts/run_study.sh "$config" --output-dir "$root" --only-seed "$seed"
        echo
    done
    exit
fi

# -- seeds ------------------------------------------------------------------------------------------------------------
sizes
breadth=yes
runs=()
for seed in "${seeds[@]}"; do
    out=$root/seed_$seed
    runs+=("$out")
    [[ -z $only || $only == "$seed" ]] || continue
    echo "== seed $seed"
    claim_folder "$(grep -v ^seeds= <<<"$settings") seed=$seed configs=$(configs_checksum)" \
        "give another --output-dir"
    prepare_both
    both_conditions
    code=0
    compare_both "$description, seed $seed" || code=$?
    [[ $code -eq 0 || $code -eq 3 ]] || exit "$code"
done
[[ -z $only ]] || exit 0

uv run --no-sync python scripts/report.py --seeds "${runs[@]}" --output-dir "$root" --data-description "$description"
echo "study: $root/study.html (and study.md), after $SECONDS s"
