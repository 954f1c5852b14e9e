"""SLURM's commands and a launcher as small programs, in place of the real ones."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from helpers.launching import ROOT, environment

PROGRAMS = {
    # Its tasks are its own; like the real one it kills them at once when it is signalled itself.
    "srun": """
echo "srun $*" >>"$STUBS/log"
while [[ $1 == --* ]]; do shift; done
pids=()
trap 'kill -KILL "${pids[@]}"; exit 137' TERM
for ((node = 0; node < SLURM_NNODES; node++)); do
    SLURM_NODEID=$node "$@" &
    pids+=($!)
done
echo "${pids[@]}" >"$STUBS/tasks"
code=0
for pid in "${pids[@]}"; do wait "$pid" || code=$?; done
exit "$code"
""",
    "scancel": """
echo "scancel $*" >>"$STUBS/log"
[ "$*" = "--signal=TERM $SLURM_JOB_ID" ]
kill -TERM $(cat "$STUBS/tasks")
""",
    "scontrol": """
echo "scontrol $*" >>"$STUBS/log"
case "$1 $2" in
    "show hostnames") tr ' ' '\\n' <<<"$3" ;;
    requeue*) exit "${REQUEUE_FAILS:-0}" ;;
esac
""",
    # Runs a job at once, the tasks of an array one after the other, and says its number.
    "sbatch": """
echo "sbatch $*" >>"$STUBS/log"
job=$((700 + $(grep -c ^sbatch "$STUBS/log")))
array=
while [[ $1 == --* ]]; do
    if [[ $1 == --array=* ]]; then array=${1#--array=}; fi
    shift
done
unset SLURM_ARRAY_TASK_ID
if [ -z "$array" ]; then
    bash "$@" >>"$STUBS/said" 2>&1
else
    export SLURM_ARRAY_TASK_COUNT=$((${array#*-} - ${array%-*} + 1))
    for ((task = ${array%-*}; task <= ${array#*-}; task++)); do
        SLURM_ARRAY_TASK_ID=$task bash "$@" >>"$STUBS/said" 2>&1
    done
fi
echo "$job;cluster"
""",
    # `say CODE` leaves a status as the trainer does; $FAKE is what the launcher goes through.
    "accelerate": """
echo "accelerate $*" >>"$STUBS/log"
say() {
    mkdir -p "$STUBS/run"
    printf '{\\n "outcome": "%s",\\n "exit_code": %s,\\n "message": "",\\n "phase": "vec",\\n "step": 3,\\n' x "$1"
    printf ' "heartbeat": %s.5\\n}\\n' "${2:-$(date +%s)}"
} >"$STUBS/run/status.json"
eval "$FAKE"
""",
    # Resolves a configuration as the real one does, but quickly.
    "python": f"""
case "$*" in
    *--print-config*) [ -z "${{REFUSED:-}}" ] || exit "$REFUSED"; echo "output: '$STUBS/run'" ;;
    *) exec {sys.executable} "$@" ;;
esac
""",
}


class Job:
    """A job script under stubs. `programs`: those that are replaced; others are found as they are."""

    def __init__(self, folder: Path, *programs: str) -> None:
        self.folder = folder
        (folder / "bin").mkdir()
        (folder / "run").mkdir()
        (folder / "log").touch()
        for name in programs:
            program = folder / "bin" / name
            program.write_text("#!/usr/bin/env bash\nset -euo pipefail\n" + PROGRAMS[name])
            program.chmod(0o755)
        self.environment = {
            **environment(),
            **{"STUBS": str(folder), "SLURM_JOB_ID": "41234", "SLURM_NNODES": "1", "SLURM_GPUS_ON_NODE": "8"},
            "PATH": f"{folder / 'bin'}:{Path(sys.executable).parent}:{os.environ['PATH']}",
        }

    def start(self, script: str, *arguments: str, **environment: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            ["bash", f"launch_configs/{script}", *arguments],
            env={**self.environment, **environment},
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def run(self, script: str, *arguments: str, **environment: str) -> tuple[int, str]:
        """Exit code and what was said."""
        process = self.start(script, *arguments, **environment)
        out, err = process.communicate(timeout=200)
        return process.returncode, out + err

    @property
    def log(self) -> list[str]:
        return (self.folder / "log").read_text().splitlines()

    @property
    def requeued(self) -> bool:
        return f"scontrol requeue {self.environment['SLURM_JOB_ID']}" in self.log


def wait_for(path: Path, seconds: float = 60) -> None:
    """Until the file is there."""
    end = time.monotonic() + seconds
    while not path.exists():
        assert time.monotonic() < end, f"{path} never came"
        time.sleep(0.05)
