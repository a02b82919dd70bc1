#!/usr/bin/env bash
# run_10b.sh as a SLURM job, pretraining on several nodes: an example to adapt to a cluster.
#
#   bash scripts/run_10b.sh --dry-run              prints the two [data ...] commands: run them first, on a CPU node
#   sbatch scripts/slurm_10b.sh                    everything after the data
#   sbatch --nodes=1 --gpus-per-node=8 scripts/slurm_10b.sh --seed 1 --output-root outputs/10b_seed1
#
# gpt2_124m.yaml's batch is 8 micro-batches of 64 sequences; on more than 8 GPUs its batch_size must be smaller.
# The checkout, with the .venv that scripts/setup.sh makes, and its data and outputs must be on a file system that all
# nodes share. Before the time limit, or when the job is preempted, SIGTERM arrives: training saves and stops, and the
# job is queued again and goes on from there. SFT, evaluation and comparison run on the first node.
#
#SBATCH --job-name=domain-token-gpt2
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=32
#SBATCH --time=12:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=B:TERM@240
set -uo pipefail
cd "${SLURM_SUBMIT_DIR:?this is a job script; start it with sbatch}"

gpus=${SLURM_GPUS_ON_NODE:?no GPUs in this job; give --gpus-per-node}
host=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
port=$((20000 + SLURM_JOB_ID % 10000)) # two jobs on one node must not meet
export SRUN_CPUS_PER_TASK=${SLURM_CPUS_PER_TASK:-1} # srun no longer takes it from the job (Slurm 22.05)
# One torchrun per node; they find each other at the first node. Its workers get two minutes to save.
launcher="srun torchrun --nnodes=$SLURM_NNODES --nproc_per_node=$gpus --rdzv_id=$SLURM_JOB_ID --rdzv_backend=c10d"
launcher+=" --rdzv_endpoint=$host:$port --shutdown-timeout=120"

# The signal reaches this shell only; the run is a process group of its own, so that all of it can be told.
stopped=no
trap 'stopped=yes; kill -TERM -- "-$run"' TERM
set -m
bash scripts/run_10b.sh --skip-data --launcher "$launcher" --gpus $((gpus * SLURM_NNODES)) "$@" &
run=$!
set +m
code=0
wait "$run" || code=$?
while kill -0 "$run" 2>/dev/null; do # a signal ends `wait`, not the run
    code=0
    wait "$run" || code=$?
done
if [[ $stopped == yes && $code -ne 0 ]]; then
    echo "stopped by SIGTERM; job $SLURM_JOB_ID goes back to the queue"
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
