#!/usr/bin/env bash
# Both conditions at full scale: FineWeb-Edu, its contamination, pretraining, export, HellaSwag of every checkpoint, SFT
# on GSM8K, evaluation, comparison and plots.
#
#   bash scripts/run_10b.sh --dry-run            the plan, the checks and every command; nothing is run
#   bash scripts/run_10b.sh                      GPT-2 124M on 10B tokens per condition, on all GPUs of this machine
#   bash scripts/run_10b.sh --config pretrain/configs/gpt2_355m.yaml --output-root outputs/10b_355m
#
# First come time, cost and the checks of disk, GPUs and token budget; a check that fails ends it before anything is
# made. Called again it goes on where it stopped: stages whose outputs are complete are skipped, a training continues
# from its last checkpoint. SIGTERM makes a training save first. On a SLURM cluster: scripts/slurm_10b.sh.
#
#   --config FILE            of pretrain/train.py (pretrain/configs/gpt2_124m.yaml)
#   --sft-config FILE        of sft/sft_gsm8k.py (sft/configs/gsm8k.yaml)
#   --data-root DIR          shards of both conditions (data/processed/fineweb_edu)
#   --output-root DIR        everything else (outputs/10b)
#   --target-tokens N        training tokens to prepare per condition (what the config's steps read)
#   --workers N              processes that prepare them (all cores)
#   --seed N                 of everything (0)
#   --data-seed N            of the data alone, for several seeds on the same shards (that of --seed)
#   --source SOURCE          what data/prepare_fineweb.py reads, PATH[=WEIGHT] or HUB_ID:CONFIG[=WEIGHT]; several are
#                            mixed (HuggingFaceFW/fineweb-edu:sample-100BT)
#   --math-fraction X        of the text, generated arithmetic that is mixed in (0)
#   --hellaswag, --gsm8k PATH    local files in place of the hub's
#   --eval-items N           only the first N items of each benchmark, to try things
#   --skip-data              the shards are there already
#   --skip-baseline, --skip-mul-tokens    only the other condition; the comparison needs both
#   --price-per-gpu-hour X, --tokens-per-second X    for the estimate; see scripts/plan_run.py
#   --allow-cpu              start without a GPU
#   --launcher COMMAND --gpus N --gpu MODEL    what starts pretrain/train.py, and on how many GPUs of which kind in all
set -euo pipefail
caller=$PWD
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/setup.sh
source scripts/stages.sh

# -- arguments --------------------------------------------------------------------------------------------------------
config=pretrain/configs/gpt2_124m.yaml sft_config=sft/configs/gsm8k.yaml
data=data/processed/fineweb_edu out=outputs/10b
target="" workers=$(getconf _NPROCESSORS_ONLN) seed=0 data_seed="" math=0
hellaswag="" gsm8k="" items="" launcher="" skip_data=no dry_run=no
conditions=(baseline mul_tokens) sources=() plan=()
while [[ $# -gt 0 ]]; do
    case "$1" in
        --skip-data) skip_data=yes && plan+=(--skip-data) ;;
        --skip-baseline) conditions=("${conditions[@]/baseline/}") ;;
        --skip-mul-tokens) conditions=("${conditions[@]/mul_tokens/}") ;;
        --dry-run) dry_run=yes ;;
        --allow-cpu) plan+=(--allow-cpu) ;;
        -h | --help) usage && exit 0 ;;
        --*)
            [[ $# -ge 2 ]] || fail "$1 needs a value, or is unknown; see bash scripts/run_10b.sh --help"
            path=$2
            [[ $path == /* ]] || path=$caller/$path # paths are the caller's
            case "$1" in
                --config) config=$path ;;
                --sft-config) sft_config=$path ;;
                --data-root) data=$path ;;
                --output-root) out=$path ;;
                --source) [[ -e ${path%=*} ]] && sources+=("$path") || sources+=("$2") ;;
                --math-fraction) math=$2 ;;
                --hellaswag) hellaswag=$path ;;
                --gsm8k) gsm8k=$path ;;
                --target-tokens) target=$2 ;;
                --workers) workers=$2 ;;
                --seed) seed=$2 ;;
                --data-seed) data_seed=$2 ;;
                --eval-items) items=$2 ;;
                --launcher) launcher=$2 ;;
                --price-per-gpu-hour | --tokens-per-second | --gpus | --gpu) plan+=("$1" "$2") ;;
                *) fail "unknown argument $1; see bash scripts/run_10b.sh --help" ;;
            esac
            shift
            ;;
        *) fail "unknown argument $1; see bash scripts/run_10b.sh --help" ;;
    esac
    shift
done
read -ra conditions <<<"${conditions[*]}" # without the empty places of skipped ones
# sample-10BT, 100M tokens of it held out, holds fewer than the 10B tokens that 19,073 steps read.
[[ ${#sources[@]} -gt 0 ]] || sources=(HuggingFaceFW/fineweb-edu:sample-100BT)
[[ ${#conditions[@]} -gt 0 ]] || fail "--skip-baseline and --skip-mul-tokens leave nothing to run"
for file in "$config" "$sft_config"; do
    [[ -f $file ]] || fail "config file $file does not exist"
done

# -- plan and checks --------------------------------------------------------------------------------------------------
trap 'exit 143' TERM # not at once: bash waits for the stage, and a training that got the signal too saves first
set_up
check() {
    uv run --no-sync python scripts/plan_run.py --pretrain-config "$config" --conditions "${conditions[@]}" \
        ${target:+--target-tokens "$target"} --workers "$workers" --data-root "$data" --output-root "$out" \
        ${plan[@]+"${plan[@]}"} "$@"
}
code=0
check || code=$?
[[ $code == 0 || $dry_run == yes ]] || exit "$code"
# What decides the results; data and benchmarks have records of their own.
configs=$(cat "$config" "$sft_config" | cksum | cut -d' ' -f1)
claim_folder "seed=$seed sources=${sources[*]} math=$math items=$items configs=$configs" "give another --output-root"

# -- stages -----------------------------------------------------------------------------------------------------------
numbers=$(uv run --no-sync python -c 'import sys, torch
from common.config import config_from_yaml
from scripts.plan_run import TrainConfig, tokens_to_prepare
print(torch.cuda.device_count(), tokens_to_prepare(config_from_yaml(TrainConfig, sys.argv[1])))' "$config")
read -r gpus tokens <<<"$numbers"
parallel=(python)
# On SIGTERM torchrun gives its workers so many seconds to save.
[[ $gpus -gt 1 ]] && parallel=(torchrun --standalone "--nproc_per_node=$gpus" --shutdown-timeout=120)
pretrain_launcher=("${parallel[@]}")
[[ -n $launcher ]] && read -ra pretrain_launcher <<<"$launcher"

prepare() {
    local condition=$1 source flags=()
    for source in "${sources[@]}"; do
        flags+=(--source "$source")
    done
    # Always called: it finds in seconds that shards are complete, or that they were made with other arguments.
    stage "data $condition" "" python data/prepare_fineweb.py --condition "$condition" --out-dir "$data/$condition" \
        --target-tokens "${target:-$tokens}" --workers "$workers" --seed "${data_seed:-$seed}" --math-fraction "$math" "${flags[@]}"
}

searched=${conditions[0]}
[[ ${#conditions[@]} == 2 ]] && searched=both
contamination=$out/contamination_$searched.json
train_and_evaluate() {
    local condition=$1 inject=""
    [[ $condition == mul_tokens ]] && inject=--inject-mul-tokens
    local pretrain=$out/pretrain_$condition hf=$out/hf_$condition sft=$out/sft_gsm8k_$condition
    local curve=$out/checkpoint_evals eval_hf=$out/eval_hf_$condition eval_sft=$out/eval_sft_gsm8k_$condition
    stage "pretrain $condition" "$pretrain/run.json" "${pretrain_launcher[@]}" pretrain/train.py --config "$config" \
        --condition "$condition" --seed "$seed" --data-dir "$data/$condition" --output-dir "$pretrain" \
        ${hellaswag:+--hellaswag.data-path "$hellaswag"}
    stage "export $condition" "$hf/run.json" python pretrain/export_hf.py --condition "$condition" \
        --checkpoint "$pretrain" --output-dir "$hf"
    stage "checkpoints $condition" "" "${parallel[@]}" scripts/eval_checkpoints.py \
        --runs "$pretrain" --output-dir "$curve" ${hellaswag:+--data-path "$hellaswag"} ${items:+--max-samples "$items"}
    stage "hellaswag $condition" "$eval_hf/run_hellaswag.json" "${parallel[@]}" eval/run_hellaswag.py \
        --model-path "$hf" --output-dir "$eval_hf" --contamination "$contamination" \
        ${hellaswag:+--data-path "$hellaswag"} ${items:+--max-samples "$items"}
    stage "sft $condition" "$sft/sft_results.json" python sft/sft_gsm8k.py --config "$sft_config" --resume $inject \
        --condition "$condition" --seed "$seed" --model-path "$hf" --output-dir "$sft" ${gsm8k:+--data-path "$gsm8k"}
    stage "gsm8k $condition" "$eval_sft/run_gsm8k.json" python eval/run_gsm8k.py --model-path "$sft" \
        --output-dir "$eval_sft" --contamination "$contamination" \
        ${gsm8k:+--data-path "$gsm8k"} ${items:+--max-samples "$items"}
    stage "probes $condition" "$eval_sft/run_probes.json" python eval/run_arithmetic_probes.py --model-path "$sft" \
        --output-dir "$eval_sft" --contamination "$contamination" ${items:+--max-samples "$items"}
}

if [[ $skip_data == no ]]; then
    for condition in "${conditions[@]}"; do
        prepare "$condition"
    done
    [[ $dry_run == yes ]] || check --skip-data >/dev/null # a source may have held less than was asked for
fi
# One report for the evaluations of both conditions, so that their clean subsets are the same; its name says whose shards
# were searched, and a call that skips a condition leaves another one.
stage contamination "$contamination" python data/check_contamination.py --sources "${conditions[@]/#/$data/}" \
    --gsm8k "${gsm8k:-openai/gsm8k}" --hellaswag "${hellaswag:-Rowan/hellaswag}" --workers "$workers" \
    --output "$contamination"
for condition in "${conditions[@]}"; do
    train_and_evaluate "$condition"
done

# -- plots and comparison ---------------------------------------------------------------------------------------------
# Of what there is, also of a condition that this call skipped. They take seconds, so they are always made anew.
show() {
    if [[ $dry_run == yes ]]; then
        echo "[report] uv run --no-sync$(printf ' %q' "$@")"
    else
        uv run --no-sync "$@"
    fi
}
present=()
for condition in baseline mul_tokens; do
    if [[ " ${conditions[*]} " == *" $condition "* || -e $out/eval_sft_gsm8k_$condition/run_probes.json ]]; then
        present+=("$condition")
    fi
done
show python scripts/visualize_pretrain_losses.py --output "$out/losses.png" --runs "${present[@]/#/$out/pretrain_}"
show python scripts/plot_checkpoint_curve.py --output "$out/hellaswag.png" \
    --evals "${present[@]/#/$out/checkpoint_evals/}"
if [[ ${#present[@]} == 2 ]]; then
    # Exit code 3 says that the two are not comparable; there is a report all the same, which says why.
    compared=0
    show python scripts/compare_runs.py --output-dir "$out" \
        --baseline "$out"/{pretrain,hf,eval_hf,sft_gsm8k,eval_sft_gsm8k}_baseline \
        --mul-tokens "$out"/{pretrain,hf,eval_hf,sft_gsm8k,eval_sft_gsm8k}_mul_tokens || compared=$?
    [[ $code -ne 0 ]] || code=$compared
else
    echo "no comparison: only ${present[*]} is there"
fi
[[ $dry_run == yes || ($code -ne 0 && $code -ne 3) ]] || echo "results: $out (report.html, losses.png, hellaswag.png), after $SECONDS s"
exit "$code"
