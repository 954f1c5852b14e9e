#!/usr/bin/env bash
# sbatch launch_configs/slurm/one_node.sh PRESET [key=value ...]
# From the checkout, with the environment activated that has savae_dist. Overrides: sbatch --gpus-per-node=4 ...
#SBATCH --job-name=savae
#SBATCH --nodes=1
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

train --config_file "${LAUNCH_FILE:-launch_configs/accelerate/gpu_node.yaml}" -- "$@"
