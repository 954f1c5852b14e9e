# Sourced by the SLURM scripts: one launcher per node, saved in time, requeued when the run can go on.
# LAUNCH_FILE: another launch file. PROCESSES: trainers per node (default: the node's GPUs).
# MAX_REQUEUES: how often the job may start again (default 20).
# shellcheck shell=bash
source launch_configs/common.sh

export TORCH_ELASTIC_SHUTDOWN_TIMEOUT=240 # seconds that a launcher leaves its trainers to save; below --signal's 300
if [ -n "${SLURM_CPUS_PER_TASK:-}" ]; then
    export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK # since SLURM 22.05 srun does not take it over from sbatch
fi

# To the launchers, which hand it on. Not to srun: it would kill them at once.
stop() {
    scancel --signal=TERM "$SLURM_JOB_ID" || true # reaches the steps, not this script
}

# train OPTIONS -- ARGUMENTS...: a launcher with these options on each node; it adds the machine's rank. Ends the script.
train() {
    local options=() processes=${PROCESSES:-${SLURM_GPUS_ON_NODE:?no GPU on this node: set PROCESSES and LAUNCH_FILE}}
    while [ "$1" != -- ]; do
        options+=("$1")
        shift
    done
    shift
    # Each node ends by itself: a peer may still be saving.
    # shellcheck disable=SC2016 # SLURM_NODEID is the node's
    watch stop srun --ntasks-per-node=1 --kill-on-bad-exit=0 --wait=0 \
        bash -c 'exec accelerate launch --quiet --machine_rank "$SLURM_NODEID" "$@"' launcher \
        --num_processes $((SLURM_NNODES * processes)) "${options[@]}" "${trainer[@]}" "$@"
    code=$(true_code "$@")
    if [ "$code" -eq 75 ]; then
        requeue
    fi
    exit "$code"
}

requeue() {
    local limit=${MAX_REQUEUES:-20}
    if [ "${SLURM_RESTART_COUNT:-0}" -ge "$limit" ]; then
        echo "requeued $limit times already: sbatch again to go on, or raise MAX_REQUEUES" >&2
    elif scontrol requeue "$SLURM_JOB_ID"; then
        echo "job $SLURM_JOB_ID goes on in the queue" >&2
    else
        echo "job $SLURM_JOB_ID could not be requeued: sbatch again to go on" >&2
    fi
}
