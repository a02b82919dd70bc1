#!/usr/bin/env bash
# A study: the pipeline of the demo for several paired seeds, and one report over all of them.
#
#   bash scripts/run_study.sh scripts/configs/study_cpu.yaml
#   bash scripts/run_study.sh scripts/configs/ablation_strict.yaml              takes over what study_cpu has of it
#   bash scripts/run_study.sh scripts/configs/study_cpu.yaml --print-jobs       a command per job, for a cluster
#   bash scripts/run_study.sh scripts/configs/study_124m.yaml -- --dry-run      GPT-2 124M: scripts/run_10b.sh per seed
#
# Called again it goes on where it stopped, also after a kill. Two calls for the same seed and condition at once: the
# second one says so and ends.
#
#   --output-dir DIR      where the study goes (outputs/ and the config's name)
#   --only-seed N         run only this seed of the config; the study's report needs all
#   --only-condition C    run only baseline or mul_tokens; the other one may run at the same time, elsewhere
#   --print-jobs          print a command per condition and seed, last the one that makes the reports; run nothing
#   -- ARGUMENTS          of a study of size 10b: further arguments for scripts/run_10b.sh
set -euo pipefail
caller=$PWD
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/setup.sh
source scripts/stages.sh
source scripts/pipeline.sh

# -- arguments --------------------------------------------------------------------------------------------------------
config="" root="" only="" print_jobs=no dry_run=no
conditions=(baseline mul_tokens) further_10b=()
while [[ $# -gt 0 ]]; do
    case "$1" in
        --print-jobs) print_jobs=yes ;;
        --output-dir | --only-seed | --only-condition)
            [[ $# -ge 2 ]] || fail "$1 needs a value"
            case "$1" in
                --output-dir) root=$2 && [[ $root == /* ]] || root=$caller/$root ;;
                --only-seed) only=$2 ;;
                --only-condition)
                    [[ $2 == baseline || $2 == mul_tokens ]] || fail "--only-condition $2: expected baseline or mul_tokens"
                    conditions=("$2")
                    ;;
            esac
            shift
            ;;
        --)
            further_10b=("${@:2}")
            break
            ;;
        -h | --help) usage && exit 0 ;;
        -*) fail "unknown argument $1; see bash scripts/run_study.sh --help" ;;
        *) config=$1 && [[ $config == /* || ! -e $caller/$config ]] || config=$caller/$config ;;
    esac
    shift
done
[[ -n $config ]] || fail "no config given, such as scripts/configs/study_cpu.yaml"
set_up >&2 # on stdout --print-jobs has nothing but the jobs
settings=$(uv run --no-sync python scripts/study.py --config "$config")
eval "$settings" # size=..., seeds=(...), data_seed=..., gsm8k=..., text=..., flags_...=..., quoted by study.py
root=${root:-outputs/$(basename "$config" .yaml)}
[[ -z $only || ($only =~ ^[0-9]+$ && " ${seeds[*]} " == *" $only "*) ]] || fail "--only-seed $only: $config has the seeds ${seeds[*]}"
[[ $size == 10b || ${#further_10b[@]} -eq 0 ]] || fail "arguments behind -- are for studies of size 10b; $config has size $size"
runs=("${seeds[@]/#/$root/seed_}")

if [[ $print_jobs == yes ]]; then
    behind=(${further_10b[@]+-- "${further_10b[@]}"})
    job() { printf '%q ' bash scripts/run_study.sh "$config" --output-dir "$root" "$@" ${behind[@]+"${behind[@]}"} && echo; }
    for seed in "${seeds[@]}"; do
        job --only-seed "$seed" --only-condition baseline
        job --only-seed "$seed" --only-condition mul_tokens
    done
    job # with everything there, what is left is the reports
    exit
fi
[[ -z $only ]] || seeds=("$only")

# -- seeds ------------------------------------------------------------------------------------------------------------
# A report on the seed, and, of a whole study, one over the seeds. Exit code 3 of a seed's says that its conditions are
# not comparable; the one over the seeds then says so and ends.
report_seed() {
    [[ ${#conditions[@]} -eq 2 ]] || return 0
    local code=0
    compare_both "$description, seed $seed" || code=$?
    [[ $code -eq 0 || $code -eq 3 ]] || exit "$code"
}

# ran_now FOLDER...: whether this call, whose first act was to write arguments.txt, has finished a stage there.
ran_now() { [[ -n $(find "$@" -name 'run*.json' -newer "$out/arguments.txt") ]]; }

report_study() { # of what: for the message
    [[ -z $only && ${#conditions[@]} -eq 2 ]] || return 0
    uv run --no-sync python scripts/report.py --seeds "${runs[@]}" --output-dir "$root" --data-description "$description"
    echo "study with $1: $root/study.html (and study.md), after $SECONDS s"
}

if [[ $size == 10b ]]; then
    # Days per seed: one after the other, each with its own report, which run_10b.sh makes.
    skip=()
    [[ ${conditions[*]} == *baseline* ]] || skip+=(--skip-baseline)
    [[ ${conditions[*]} == *mul_tokens* ]] || skip+=(--skip-mul-tokens)
    for seed in "${seeds[@]}"; do
        code=0
        bash scripts/run_10b.sh --seed "$seed" --data-seed "$data_seed" --output-root "$root/seed_$seed" \
            ${gsm8k:+--gsm8k "$gsm8k"} ${skip[@]+"${skip[@]}"} ${further_10b[@]+"${further_10b[@]}"} || code=$?
        [[ $code -eq 0 || $code -eq 3 ]] || exit "$code"
    done
    [[ " ${further_10b[*]-} " == *" --dry-run "* ]] || report_study "all stages"
    exit
fi

sizes
breadth=yes
for seed in "${seeds[@]}"; do # all of them now, so that no other call can begin with the last one
    out=$root/seed_$seed
    claim_folder "$(grep -v -e ^seeds= -e ^builds_on= <<<"$settings") seed=$seed configs=$(configs_checksum)" \
        "give another --output-dir"
    if [[ -n $builds_on ]]; then
        uv run --no-sync python scripts/take_stages.py --study "$builds_on/seed_$seed" --output-dir "$out" \
            --conditions "${conditions[@]}"
    fi
done
# What the tokens do to arithmetic is what the study is for, and one seed is no test: so first pretraining and SFT of all
# seeds, with a report over them after about half of the time. GRPO and editing, of all seeds again, come behind it, with
# the reports once more. Where the first part had nothing left to run, its reports are left to the second.
for part in pretrain_and_sft reinforce_and_edit; do
    for seed in "${seeds[@]}"; do
        out=$root/seed_$seed
        echo "== seed $seed: ${part//_/ }"
        [[ $part == reinforce_and_edit ]] || prepare_data
        each_condition "$part"
        [[ $part == pretrain_and_sft ]] && ! ran_now "$out" || report_seed
    done
    [[ $part == pretrain_and_sft ]] && ! ran_now "${runs[@]}" || report_study "${part//_/ }"
done
