# Sourced by slurm/*.sh and container.sh: watch a launcher, and end with the code of the trainer.
# Launchers turn every code into 1; the true one stands in the run's status.json.
# TRAINER: a program in place of `-m savae_dist.train`, such as beta_vae.py, which enters a system of its own.
# shellcheck shell=bash
read -r -a trainer <<<"${TRAINER:--m savae_dist.train}"

# watch STOP LAUNCHER...: run the launcher until its end. On SIGTERM or SIGINT call STOP, which tells the trainers to
# save, and go on waiting. Sets `launcher` (its pid), `code`, `started` (seconds) and `stopped` (whether a signal came).
watch() {
    local stop=$1
    started=$(date +%s) stopped=false code=0
    "${@:2}" &
    launcher=$!
    trap 'stopped=true; "$stop"' TERM INT
    while kill -0 "$launcher" 2>/dev/null; do
        wait "$launcher" || true # a trapped signal ends `wait` as well
    done
    wait "$launcher" || code=$?
    trap '' TERM INT # what is left takes seconds
}

# true_code ARGUMENTS...: print the code with which the trainer of these arguments ended.
true_code() {
    local config output status word heartbeat refused=0
    if [ "$code" -eq 0 ]; then
        echo 0
        return
    fi
    config=$(python "${trainer[@]}" --print-config "$@" 2>/dev/null) || refused=$?
    if [ "$refused" -ne 0 ]; then
        echo "$refused" # the configuration; the trainer has said what is wrong
        return
    fi
    output=$(python -c 'import sys, yaml; print(yaml.safe_load(sys.stdin)["output"])' <<<"$config")
    status=$output/status.json
    word='' heartbeat=0
    if [ -f "$status" ]; then
        word=$(sed -n 's/^ *"exit_code": \([0-9]*\),*$/\1/p' "$status")
        heartbeat=$(sed -n 's/^ *"heartbeat": \([0-9]*\).*/\1/p' "$status")
    fi
    if [ -n "$word" ] && [ "$heartbeat" -ge "$started" ]; then
        echo "$word"
    elif $stopped || [ -f "$status" ]; then
        echo 75 # the heartbeat is stale: it was killed, or its machine was lost, before it could say how it ended
    else
        echo "$code" # this run has never trained
    fi
}
