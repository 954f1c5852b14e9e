#!/usr/bin/env bash
# sbatch launch_configs/slurm/several_nodes.sh PRESET [key=value ...]
# From the checkout (on a file system that all nodes share), with the environment activated that has savae_dist.
#SBATCH --job-name=savae
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=64
#SBATCH --time=24:00:00
#SBATCH --signal=B:TERM@300
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=slurm-%j.log
set -euo pipefail
source launch_configs/slurm/job.sh

nodes=$(scontrol show hostnames "$SLURM_JOB_NODELIST")
head=${nodes%%$'\n'*}
port=$((10000 + SLURM_JOB_ID % 20000)) # jobs that share a node do not meet

train --config_file "${LAUNCH_FILE:-launch_configs/accelerate/gpu_nodes_static.yaml}" \
    --num_machines "$SLURM_NNODES" --main_process_ip "$head" --main_process_port "$port" -- "$@"
