#!/usr/bin/env bash
# launch_configs/slurm/pack_array.sh N KIND SOURCE OUT [option ...]
# Packs shards on N machines that see the same folders; from KIND on the words are those of tools/make_shards.py.
# From the checkout, with the environment activated that has savae_dist. It queues three jobs, each after the one before:
# an array whose tasks read a part of the source each, one whose tasks write a part of the shards each, and one that makes
# the index and gives the set its name. sbatch's own variables choose where they run: SBATCH_PARTITION, SBATCH_ACCOUNT,
# SBATCH_TIMELIMIT. After a failure the same command goes on from what is there.
# Without N it is what a job of these does, so single tasks can be queued again by hand:
# PARTS=32 sbatch --array=3,7 launch_configs/slurm/pack_array.sh KIND SOURCE OUT [option ...]
#SBATCH --job-name=savae-pack
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=16
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=slurm-%j.log
set -euo pipefail

# queue OPTIONS... -- WORDS...: a job of this script with these options of sbatch; prints its number.
queue() {
    local options=() job
    while [ "$1" != -- ]; do
        options+=("$1")
        shift
    done
    shift
    job=$(sbatch --parsable "${options[@]}" launch_configs/slurm/pack_array.sh "$@") || return
    echo "${job%%;*}" # behind a semicolon stands the cluster's name
}

if [[ ${1:-} =~ ^[1-9][0-9]*$ ]]; then
    export PARTS=$1
    shift
    array=--array=0-$((PARTS - 1))
    # A job whose predecessor has failed would wait for ever.
    reading=$(queue "$array" -- "$@")
    writing=$(queue "$array" --dependency="afterok:$reading" --kill-on-invalid-dep=yes -- "$@")
    index=$(queue --dependency="afterok:$writing" --kill-on-invalid-dep=yes -- "$@")
    echo "job $reading reads, $writing writes, $index makes the index; their logs are slurm-*.log"
    exit
fi

part=()
if [ -n "${SLURM_ARRAY_TASK_ID:-}" ]; then
    part=(--part "$((SLURM_ARRAY_TASK_ID + 1))/${PARTS:-$SLURM_ARRAY_TASK_COUNT}") # tasks count from 0, parts from 1
fi
# Not all cores of the node: others may have some of them. What stands behind it in the command holds.
exec python tools/make_shards.py "${1:?give KIND SOURCE OUT}" --processes "${SLURM_CPUS_PER_TASK:-1}" "${@:2}" "${part[@]}"
