#!/usr/bin/env bash
# The container's entry point: start the trainer, hand SIGTERM on to it, and end with its own code.
# LAUNCHER: the launcher (default `accelerate launch --quiet`; `torchrun` under Kubeflow Trainer, which sets PET_*).
# LAUNCH: its options, such as "--config_file launch_configs/accelerate/cpu_2.yaml".
set -euo pipefail
# shellcheck source=launch_configs/common.sh
source "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/common.sh"
export TORCH_ELASTIC_SHUTDOWN_TIMEOUT=${TORCH_ELASTIC_SHUTDOWN_TIMEOUT:-240} # seconds to save, not 30

# To the trainers themselves: `accelerate launch` of a single process does not hand a signal on.
# shellcheck disable=SC2329 # `watch` calls it
stop() {
    local trainers=()
    # shellcheck disable=SC2154 # set by `watch`
    read -r -a trainers <"/proc/$launcher/task/$launcher/children" || true
    kill -TERM "${trainers[@]:-$launcher}" 2>/dev/null || true
}

read -r -a command <<<"${LAUNCHER:-accelerate launch --quiet} ${LAUNCH:-}"
watch stop "${command[@]}" "${trainer[@]}" "$@"
exit "$(true_code "$@")"
