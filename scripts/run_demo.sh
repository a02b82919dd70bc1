#!/usr/bin/env bash
# The whole pipeline for both conditions, from nothing to a report.
#
#   bash scripts/run_demo.sh                     models that learn, about 15 minutes on 2 CPU cores
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
source scripts/pipeline.sh

# -- arguments --------------------------------------------------------------------------------------------------------
size=demo out="" gsm8k="" text="" force=no seed=0 dry_run=no
conditions=(baseline mul_tokens)
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

sizes
if [[ $force == yes ]]; then
    [[ ! -e $out || -f $out/arguments.txt ]] || fail "$out is not a folder that the demo made; --force will not remove it"
    lock_folder
    find "$out" -mindepth 1 ! -path "$out/.lock_*" -delete
fi
arguments="size=$size seed=$seed gsm8k=$gsm8k text=$text configs=$(configs_checksum)"
claim_folder "$arguments" "give --force to redo it or another --output-dir"
set_up

# -- stages -----------------------------------------------------------------------------------------------------------
prepare_data
each_condition pretrain_and_sft reinforce_and_edit

description="synthetic: generated world, seed $seed"
if [[ -n $gsm8k$text ]]; then
    real=${gsm8k:+GSM8K}${gsm8k:+${text:+ and }}${text:+text}
    description="$real given to the demo, mixed with the synthetic generated world, seed $seed"
fi
code=0
compare_both "$description" || code=$?
[[ $code -eq 0 || $code -eq 3 ]] || exit "$code"
echo "report: $out/report.html (and report.md), after $SECONDS s"
exit "$code"
