#!/usr/bin/env bash
# run_study.sh on a SLURM cluster, a job per condition and seed and one for the reports: an example to adapt to a cluster.
#
#   bash scripts/slurm_study.sh scripts/configs/study_cpu.yaml      submits an array and, behind it, the reports
#
# Arguments are those of run_study.sh. The checkout, with the .venv that scripts/setup.sh makes, and the outputs must be on
# a file system that all nodes share. A job that was preempted, or whose node failed, is queued again and goes on where it
# stopped; one that met its time limit, after the same command. Reports are made when every job has succeeded.
# Pretraining of 124M on several nodes: scripts/slurm_10b.sh, once per seed.
#
#SBATCH --job-name=domain-token-study
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=4
#SBATCH --time=04:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
set -euo pipefail
[[ -n ${SLURM_JOB_ID:-} ]] && cd "$SLURM_SUBMIT_DIR" || cd "$(dirname "${BASH_SOURCE[0]}")/.."

jobs=$(bash scripts/run_study.sh "$@" --print-jobs)
if [[ -z ${SLURM_JOB_ID:-} ]]; then
    array=$(sbatch --parsable --array="1-$(($(wc -l <<<"$jobs") - 1))" scripts/slurm_study.sh "$@")
    sbatch --dependency="afterok:${array%%;*}" scripts/slurm_study.sh "$@" # %%: behind it may stand the cluster's name
    exit
fi
# The line of this job; the last one is that of the reports.
eval "$(sed -n "${SLURM_ARRAY_TASK_ID:-\$}p" <<<"$jobs")"
