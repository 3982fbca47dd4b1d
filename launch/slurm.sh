#!/bin/bash
# A training on several machines under Slurm: one torchrun on each, which starts a process for each GPU.
#
#     sbatch --nodes 8 launch/slurm.sh recipes/llama-8b.toml
#
# The folder of the run (runs/ here) has to lie on a file system that all machines see. Slurm's SIGTERM, some minutes
# before the time is over, makes a checkpoint; the same command goes on from there.
#SBATCH --job-name=hornbook
#SBATCH --nodes=8
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=64
#SBATCH --time=24:00:00
#SBATCH --signal=TERM@300
#SBATCH --requeue

set -euo pipefail
recipe=${1:?give a recipe: sbatch launch/slurm.sh recipes/llama-8b.toml}
first_machine=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)

# What one process can do alone, such as reading the corpus, is better done before, on one cheap machine:
#     hornbook run recipes/llama-8b.toml --until tokens
# srun does not take the number of cores from the job (since Slurm 22.05), and would give torchrun a single one.
srun --cpus-per-task "$SLURM_CPUS_PER_TASK" --kill-on-bad-exit=1 torchrun \
    --nnodes "$SLURM_NNODES" \
    --nproc-per-node 8 \
    --max-restarts 3 \
    --rdzv-id "$SLURM_JOB_ID" \
    --rdzv-backend c10d \
    --rdzv-endpoint "$first_machine:29500" \
    -m hornbook run "$recipe"
