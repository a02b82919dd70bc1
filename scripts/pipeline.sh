# Sourced by run_demo.sh and run_study.sh: all stages of one seed, from generated text to a report.
# Reads $size (quick, demo or demo_real: which configs, and how much is evaluated), $out, $seed, $gsm8k, $text,
# $conditions, those that this call runs, and $data_seed, the seed of the generated data where it is not that of training.
# A study has more: $breadth (yes: also passages in HellaSwag's format and prompts without arithmetic) and
# flags_STAGE_CONDITION, and $families, the token families where they are not the default.
breadth=no families=""

sizes() {
    case $size in
        quick) documents=1500 eval_items=20 eval_tokens=32 probe_items=10 facts_steps=5 edits=4 covariance_tokens=6000 ;;
        demo) documents=24000 eval_items=300 eval_tokens=96 probe_items=100 facts_steps=200 edits=50 covariance_tokens=30000 ;; # all there are
        demo_real) documents=24000 eval_items=200 eval_tokens=256 probe_items=100 facts_steps=200 edits=50 covariance_tokens=30000 ;;
        *) fail "size $size: expected quick, demo or demo_real" ;;
    esac
}

# What the results depend on besides the arguments.
configs_checksum() {
    {
        declare -f sizes
        cat pretrain/configs/"$size".yaml sft/configs/"$size"{,_reasoning}.yaml rl/configs/"$size".yaml \
            edit/configs/demo.yaml edit/facts.json
    } | cksum | cut -d' ' -f1
}

# further STAGE CONDITION: the study's further arguments of a stage into $more; they win over those before them. Empty
# arrays are written ${more[@]+...} because the bash of macOS calls them unbound.
further() {
    local name=flags_$1_$2
    eval "more=(${!name:-})" # quoted by study.py
}

prepare() {
    local condition=$1 more
    further text "$condition"
    stage "text $condition" "$out/raw/${condition}_stats.json" python data/prepare_text.py --condition "$condition" \
        --seed "${data_seed:-$seed}" --num-documents "$documents" --out-dir "$out/raw" ${families:+--families "$families"} \
        ${gsm8k:+--gsm8k "$gsm8k"} ${text:+--text "$text"} ${more[@]+"${more[@]}"}
    stage "tokens $condition" "$out/processed/$condition/meta.json" python data/tokenize_to_bin.py \
        --condition "$condition" --injection-mode none ${families:+--families "$families"} \
        --input "$out/raw/train_$condition.txt" --out-dir "$out/processed/$condition" # text was injected when it was made
}

# What the conditions share, the jobs of both may write at the same time: the same bytes, each file renamed into place.
prepare_data() {
    local condition
    for condition in "${conditions[@]}"; do
        prepare "$condition"
    done
    stage "reasoning rows" "$out/processed/reasoning/stats.json" python data/prepare_reasoning.py \
        --data-path "$out/raw/gsm8k" --out-dir "$out/processed/reasoning" --seed "${data_seed:-$seed}"
}

# word_problems MODEL FORMAT CONDITION: greedy answers of $out/MODEL_CONDITION to the held-out problems.
word_problems() {
    local name=$1_$3 more
    further problems "$3"
    stage "problems $1 $3" "$out/eval_$name/run_gsm8k.json" python eval/run_gsm8k.py --condition "$3" \
        --format "$2" --model-path "$out/$name" --data-path "$out/raw/gsm8k" --output-dir "$out/eval_$name" \
        --max-samples "$eval_items" --max-new-tokens "$eval_tokens" ${more[@]+"${more[@]}"}
}

# The main result: pretraining, SFT on word problems in the chat format, and what that model can do.
pretrain_and_sft() {
    local condition=$1 inject="" more
    [[ $condition == mul_tokens ]] && inject=--inject-mul-tokens
    local pretrain=$out/pretrain_$condition hf=$out/hf_$condition chat=$out/sft_gsm8k_$condition parent=$out/hf_$condition
    further pretrain "$condition"
    stage "pretrain $condition" "$pretrain/run.json" python pretrain/train.py \
        --config "pretrain/configs/$size.yaml" --condition "$condition" --seed "$seed" \
        --data-dir "$out/processed/$condition" --output-dir "$pretrain" ${more[@]+"${more[@]}"}
    stage "export $condition" "$hf/run.json" python pretrain/export_hf.py --condition "$condition" \
        --checkpoint "$pretrain" --output-dir "$hf"

    further drills "$condition"
    if [[ ${#more[@]} -gt 0 ]]; then
        parent=$out/drills_$condition
        stage "drills $condition" "$parent/sft_results.json" python sft/sft_drills.py --force $inject \
            --config "sft/configs/$size.yaml" --condition "$condition" --seed "$seed" \
            --model-path "$hf" --output-dir "$parent" "${more[@]}"
    fi
    further sft "$condition"
    stage "sft $condition" "$chat/sft_results.json" python sft/sft_gsm8k.py --force $inject \
        --config "sft/configs/$size.yaml" --condition "$condition" --seed "$seed" \
        --model-path "$parent" --data-path "$out/raw/gsm8k" --output-dir "$chat" ${more[@]+"${more[@]}"}
    word_problems sft_gsm8k chat "$condition"
    further probes "$condition"
    stage "probes $condition" "$out/eval_sft_gsm8k_$condition/run_probes.json" \
        python eval/run_arithmetic_probes.py --condition "$condition" --model-path "$chat" \
        --output-dir "$out/eval_sft_gsm8k_$condition" --max-samples "$probe_items" ${more[@]+"${more[@]}"}
    [[ $breadth == no ]] || look_around "$condition"
}

# Reasoning, stopped early enough to leave room, and GRPO from there. Facts: taught, because pretraining is too short for
# them, and edited.
reinforce_and_edit() {
    local condition=$1 inject="" more
    [[ $condition == mul_tokens ]] && inject=--inject-mul-tokens
    local hf=$out/hf_$condition reasoning=$out/sft_reasoning_$condition grpo=$out/grpo_$condition
    local facts=$out/facts_$condition memit=$out/memit_$condition corpus=$out/facts_$condition/text.txt
    [[ $size == quick ]] && corpus=$out/raw/train_$condition.txt # too little was taught there
    further reasoning "$condition"
    stage "reasoning $condition" "$reasoning/sft_results.json" python sft/sft_reasoning.py --force $inject \
        --config "sft/configs/${size}_reasoning.yaml" --condition "$condition" --seed "$seed" \
        --model-path "$hf" --data-path "$out/processed/reasoning" --output-dir "$reasoning" ${more[@]+"${more[@]}"}
    word_problems sft_reasoning reasoning "$condition"
    further grpo "$condition"
    stage "grpo $condition" "$grpo/grpo_results.json" python rl/grpo_train.py --force \
        --config "rl/configs/$size.yaml" --condition "$condition" --seed "$seed" \
        --model-path "$reasoning" --data-path "$out/raw/gsm8k" --output-dir "$grpo" ${more[@]+"${more[@]}"}
    word_problems grpo reasoning "$condition"

    stage "facts $condition" "$facts/run.json" python edit/teach_facts.py --condition "$condition" --seed "$seed" \
        --model-path "$hf" --text "$out/raw/train_$condition.txt" --steps "$facts_steps" --output-dir "$facts"
    further memit "$condition"
    stage "memit $condition" "$memit/memit_results.json" python edit/run_memit.py --condition "$condition" \
        --config edit/configs/demo.yaml --seed "$seed" --max-edits "$edits" --model-path "$facts" \
        --covariance.corpus "$corpus" --covariance.tokens "$covariance_tokens" --output-dir "$memit" ${more[@]+"${more[@]}"}
    more=()
    [[ $breadth == yes ]] && more=(--probes "$probe_items" --hellaswag "$out/raw/passages.jsonl")
    stage "edit eval $condition" "$out/eval_memit_$condition/run_edit_eval.json" python edit/run_edit_eval.py \
        --condition "$condition" --model-path "$memit" --prose "$out/processed/$condition" \
        --output-dir "$out/eval_memit_$condition" ${more[@]+"${more[@]}"}
}

# What else the stages changed: everyday passages after pretraining, prompts without arithmetic after SFT.
look_around() {
    local condition=$1
    local hf=$out/hf_$condition chat=$out/sft_gsm8k_$condition
    stage "passages $condition" "$out/eval_hf_$condition/run_hellaswag.json" python eval/run_hellaswag.py \
        --condition "$condition" --model-path "$hf" --data-path "$out/raw/passages.jsonl" --output-dir "$out/eval_hf_$condition"
    stage "domains $condition" "$out/eval_sft_gsm8k_$condition/run_domains.json" python eval/run_domains.py \
        --condition "$condition" --model-path "$chat" --before-path "$hf" --output-dir "$out/eval_sft_gsm8k_$condition"
}

# each_condition PART...: call the functions, one after the other, for each of $conditions. Two runs side by side with half
# the cores each do more work per second than one run with all of them; a GPU they share.
each_condition() {
    local cores baseline_job condition
    cores=$(getconf _NPROCESSORS_ONLN)
    if [[ $cores -lt 2 || ${#conditions[@]} -eq 1 ]] || nvidia-smi --list-gpus >/dev/null 2>&1; then
        for condition in "${conditions[@]}"; do
            parts_of "$condition" "$@"
        done
        return
    fi
    export OMP_NUM_THREADS=$((cores / 2))
    set -m # a process group of its own, so that all of it can be ended when the other run fails or is interrupted
    parts_of baseline "$@" &
    set +m
    baseline_job=$!
    trap "kill -- -$baseline_job 2>/dev/null || true" EXIT
    parts_of mul_tokens "$@"
    wait "$baseline_job"
    trap - EXIT
}

parts_of() {
    local condition=$1 part
    shift
    for part in "$@"; do
        "$part" "$condition"
    done
}

# compare_both DESCRIPTION: the report on the stages that both conditions have. Exit code 3 says that the two are not
# comparable; there is a report all the same.
compare_both() {
    local name baseline=() mul_tokens=()
    for name in pretrain hf drills sft_gsm8k eval_sft_gsm8k sft_reasoning eval_sft_reasoning grpo eval_grpo \
        facts memit eval_memit eval_hf; do
        if compgen -G "$out/${name}_baseline/run*.json" && compgen -G "$out/${name}_mul_tokens/run*.json"; then
            baseline+=("$out/${name}_baseline") mul_tokens+=("$out/${name}_mul_tokens")
        fi
    done >/dev/null
    uv run --no-sync python scripts/compare_runs.py --output-dir "$out" --data-description "$1" \
        --baseline "${baseline[@]}" --mul-tokens "${mul_tokens[@]}"
}
