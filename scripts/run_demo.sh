#!/usr/bin/env bash
# The whole pipeline for both conditions, from nothing to a report.
#
#   bash scripts/run_demo.sh                     models that learn, about 10 minutes on 2 CPU cores
#   bash scripts/run_demo.sh --quick             the same stages at toy size, under 3 minutes
#   bash scripts/run_demo.sh --gsm8k DIR --text DIR     real data beside the generated, in outputs/demo_real
#
# Stages whose outputs are complete are skipped; --force redoes them all. Without --gsm8k and --text everything is
# generated here, and the results are synthetic.
set -euo pipefail
caller=$PWD
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/setup.sh
source scripts/stages.sh

# -- arguments --------------------------------------------------------------------------------------------------------
size=demo out="" gsm8k="" text="" force=no seed=0 dry_run=no
usage() { sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' scripts/run_demo.sh; }
while [[ $# -gt 0 ]]; do
    case "$1" in
        --quick) size=quick ;;
        --force) force=yes ;;
        --gsm8k | --text | --output-dir | --seed)
            [[ $# -ge 2 ]] || fail "$1 needs a value"
            value=$2
            [[ $1 == --seed || $value == /* ]] || value=$caller/$value # paths are the caller's
            case "$1" in --gsm8k) gsm8k=$value ;; --text) text=$value ;; --output-dir) out=$value ;; --seed) seed=$value ;; esac
            shift
            ;;
        -h | --help) usage && exit 0 ;;
        *) fail "unknown argument $1; see bash scripts/run_demo.sh --help" ;;
    esac
    shift
done
# Real problems are longer than the generated ones: their models have a context of 512.
[[ $size == demo && -n $gsm8k ]] && size=demo_real
case $size in
    demo) name=demo${text:+_text} ;;
    quick) name=demo_quick ;;
    *) name=$size ;;
esac
out=${out:-outputs/$name}

configs=$(cat "pretrain/configs/$size.yaml" "sft/configs/$size.yaml" | cksum | cut -d' ' -f1)
if [[ $force == yes ]]; then
    [[ ! -e $out || -f $out/arguments.txt ]] || fail "$out is not a folder that the demo made; --force will not remove it"
    rm -rf "$out"
fi
arguments="size=$size seed=$seed gsm8k=$gsm8k text=$text configs=$configs"
claim_folder "$arguments" "give --force to redo it or another --output-dir"
set_up

# -- sizes ------------------------------------------------------------------------------------------------------------
case $size in
    quick) documents=1500 eval_items=20 eval_tokens=32 probe_items=10 ;;
    demo) documents=24000 eval_items=300 eval_tokens=96 probe_items=100 ;; # all there are
    demo_real) documents=24000 eval_items=200 eval_tokens=256 probe_items=100 ;;
esac

# -- stages -----------------------------------------------------------------------------------------------------------
prepare() {
    local condition=$1
    stage "text $condition" "$out/raw/${condition}_stats.json" python data/prepare_text.py --condition "$condition" \
        --seed "$seed" --num-documents "$documents" --out-dir "$out/raw" ${gsm8k:+--gsm8k "$gsm8k"} ${text:+--text "$text"}
    stage "tokens $condition" "$out/processed/$condition/meta.json" python data/tokenize_to_bin.py \
        --condition "$condition" --input "$out/raw/train_$condition.txt" --out-dir "$out/processed/$condition"
}

train_and_evaluate() {
    local condition=$1 inject=""
    [[ $condition == mul_tokens ]] && inject=--inject-mul-tokens
    local pretrain=$out/pretrain_$condition hf=$out/hf_$condition sft=$out/sft_gsm8k_$condition
    local eval=$out/eval_sft_gsm8k_$condition
    stage "pretrain $condition" "$pretrain/run.json" python pretrain/train.py \
        --config "pretrain/configs/$size.yaml" --condition "$condition" --seed "$seed" \
        --data-dir "$out/processed/$condition" --output-dir "$pretrain"
    stage "export $condition" "$hf/run.json" python pretrain/export_hf.py --condition "$condition" \
        --checkpoint "$pretrain" --output-dir "$hf"
    stage "sft $condition" "$sft/sft_results.json" python sft/sft_gsm8k.py --force $inject \
        --config "sft/configs/$size.yaml" --condition "$condition" --seed "$seed" \
        --model-path "$hf" --data-path "$out/raw/gsm8k" --output-dir "$sft"
    stage "gsm8k $condition" "$eval/gsm8k_results.json" python eval/run_gsm8k.py --condition "$condition" \
        --model-path "$sft" --data-path "$out/raw/gsm8k" --output-dir "$eval" \
        --max-samples "$eval_items" --max-new-tokens "$eval_tokens"
    stage "probes $condition" "$eval/probes_results.json" python eval/run_arithmetic_probes.py \
        --condition "$condition" --model-path "$sft" --output-dir "$eval" --max-samples "$probe_items"
}

for condition in baseline mul_tokens; do
    prepare "$condition"
done

cores=$(getconf _NPROCESSORS_ONLN)
if command -v nvidia-smi >/dev/null && nvidia-smi --list-gpus >/dev/null 2>&1 || [[ $cores -lt 2 ]]; then
    for condition in baseline mul_tokens; do
        train_and_evaluate "$condition"
    done
else
    # Two runs side by side with half the cores each do more work per second than one run with all of them.
    export OMP_NUM_THREADS=$((cores / 2))
    set -m # a process group of its own, so that all of it can be ended when the other run fails or is interrupted
    train_and_evaluate baseline &
    set +m
    baseline_job=$!
    trap 'kill -- -$baseline_job 2>/dev/null || true' EXIT
    train_and_evaluate mul_tokens
    wait "$baseline_job"
    trap - EXIT
fi

description="synthetic: generated world, seed $seed"
if [[ -n $gsm8k$text ]]; then
    real=${gsm8k:+GSM8K}${gsm8k:+${text:+ and }}${text:+text}
    description="$real given to the demo, mixed with the synthetic generated world, seed $seed"
fi
# Exit code 1 says that the two are not comparable; there is a report all the same, which says why.
code=0
uv run --no-sync python scripts/compare_runs.py --output-dir "$out" --data-description "$description" \
    --baseline "$out"/{pretrain,hf,sft_gsm8k,eval_sft_gsm8k}_baseline \
    --mul-tokens "$out"/{pretrain,hf,sft_gsm8k,eval_sft_gsm8k}_mul_tokens || code=$?
[[ $code -gt 1 ]] && exit "$code"
echo "report: $out/report.html (and report.md), after $SECONDS s"
exit "$code"
