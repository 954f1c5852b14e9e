"""The launch files: every field, what Accelerate makes of it, the manifests, and the table in docs/launch.md."""

from __future__ import annotations

import re
import shlex
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest
import yaml
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils.launch import (
    prepare_deepspeed_cmd_env,
    prepare_multi_gpu_env,
    prepare_simple_launcher_cmd_env,
)
from helpers.launching import ROOT
from kubeflow_trainer_api import models

from savae_dist import errors
from savae_dist.load_config import load

FOLDER = ROOT / "launch_configs"
PAGE = (ROOT / "docs" / "launch.md").read_text()

HERE = {"compute_environment": "LOCAL_MACHINE", "num_machines": 1, "machine_rank": 0, "mixed_precision": "no"}
TWO_CPUS = {**HERE, "use_cpu": True, "gpu_ids": "-1,-1", "num_processes": 2, "main_process_port": 0}
NODE = {**HERE, "use_cpu": False, "gpu_ids": "all", "num_processes": 8, "main_process_port": 0}
NODES = {**NODE, "distributed_type": "MULTI_GPU", "num_machines": 2, "num_processes": 16, "main_process_port": 29500}
FSDP = {"distributed_type": "FSDP", "fsdp_config": {"fsdp_version": 2}}
NO_OFFLOAD = {"offload_optimizer_device": "none", "offload_param_device": "none", "zero3_init_flag": False}


def zero(stage: int, **more: Any) -> dict[str, Any]:
    return {"distributed_type": "DEEPSPEED", "deepspeed_config": {"zero_stage": stage, **NO_OFFLOAD, **more}}


FILES: dict[str, dict[str, Any]] = {
    "cpu_1": {**HERE, "distributed_type": "NO", "use_cpu": True, "num_processes": 1},
    "cpu_2": {**TWO_CPUS, "distributed_type": "MULTI_GPU"},
    "gpu_1": {**HERE, "distributed_type": "NO", "use_cpu": False, "num_processes": 1},
    "gpu_node": {**NODE, "distributed_type": "MULTI_GPU"},
    "gpu_nodes_static": {**NODES, "rdzv_backend": "static"},
    "gpu_nodes_elastic": {**NODES, "rdzv_backend": "c10d"},
    "zero1_cpu": {**TWO_CPUS, **zero(1)},
    "zero2_cpu": {**TWO_CPUS, **zero(2)},
    "zero1_gpu": {**NODE, **zero(1, deepspeed_multinode_launcher="standard")},
    "zero2_gpu": {**NODE, **zero(2, deepspeed_multinode_launcher="standard")},
    "fsdp_cpu": {**TWO_CPUS, **FSDP},
    "fsdp_gpu": {**NODE, **FSDP},
}
BY_FILE = pytest.mark.parametrize("name", FILES)


def path(name: str) -> Path:
    return FOLDER / "accelerate" / f"{name}.yaml"


def launcher(*words: str) -> Namespace:
    """The options of `accelerate launch`, as it reads command line and launch file together."""
    arguments, _, _ = _validate_launch_command(launch_command_parser().parse_args([*words, "-m", "savae_dist.train"]))
    return arguments


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "ACCELERATE_GRADIENT_CLIPPING"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


def test_every_launch_file_is_known() -> None:
    assert {p.stem for p in (FOLDER / "accelerate").iterdir()} == set(FILES)


@BY_FILE
def test_every_field(name: str) -> None:
    assert yaml.safe_load(path(name).read_text()) == FILES[name]


@BY_FILE
def test_accelerate_reads_every_field(name: str) -> None:
    """An unknown field is an error there; what is not given has a default that asks for nothing."""
    read = load_config_from_file(str(path(name))).to_dict()
    assert {key: read[key] for key in FILES[name]} == FILES[name]
    others = {key: value for key, value in read.items() if key not in FILES[name]}
    assert others.pop("rdzv_backend", "static") == "static"
    assert others.pop("main_training_function") == "main"  # of TPUs
    assert not any(others.values()), others


@BY_FILE
def test_what_the_processes_are_told(name: str) -> None:
    """Topology and strategy, and nothing that a run's configuration decides."""
    arguments = launcher("--config_file", str(path(name)), "--main_process_ip", "head", "--main_process_port", "29511")
    if arguments.use_deepspeed:
        arguments.deepspeed_fields_from_accelerate_config = ""
        _, environment = prepare_deepspeed_cmd_env(arguments)
        assert environment["ACCELERATE_USE_DEEPSPEED"] == "true"
        assert environment["ACCELERATE_DEEPSPEED_ZERO_STAGE"] == name[len("zero")]
    elif arguments.multi_gpu or arguments.use_fsdp:
        environment = prepare_multi_gpu_env(arguments)
        assert environment.get("ACCELERATE_USE_FSDP", "false") == str(name.startswith("fsdp")).lower()
    else:
        _, environment = prepare_simple_launcher_cmd_env(arguments)
    assert environment["ACCELERATE_MIXED_PRECISION"] == "no"
    assert environment.get("ACCELERATE_DYNAMO_BACKEND", "NO") == "NO"
    assert "ACCELERATE_GRADIENT_ACCUMULATION_STEPS" not in environment
    assert "ACCELERATE_GRADIENT_CLIPPING" not in environment
    assert (environment.get("CUDA_VISIBLE_DEVICES") == "-1,-1") == (
        name in ("cpu_2", "zero1_cpu", "zero2_cpu", "fsdp_cpu")
    )
    if FILES[name]["num_processes"] > 1:
        machines = FILES[name]["num_machines"]
        assert arguments.nproc_per_node == str(FILES[name]["num_processes"] // machines)
    if name.startswith("gpu_nodes"):
        assert (arguments.nnodes, arguments.node_rank) == ("2", 0)
        assert arguments.rdzv_endpoint == "head:29511"


@pytest.mark.parametrize("stage", [1, 2])
def test_deepspeed_on_several_machines_starts_as_ddp_does(stage: int) -> None:
    """And not by `deepspeed` over ssh, which is what Accelerate takes where nothing is said."""
    machine = ["--num_machines", "2", "--num_processes", "16", "--machine_rank", "1", "--main_process_ip", "head"]
    arguments = launcher("--config_file", str(path(f"zero{stage}_gpu")), *machine, "--main_process_port", "29511")
    arguments.deepspeed_fields_from_accelerate_config = ""
    command, _ = prepare_deepspeed_cmd_env(arguments)
    assert command is None
    assert (arguments.nnodes, arguments.nproc_per_node, arguments.node_rank) == ("2", "8", 1)
    assert arguments.rdzv_endpoint == "head:29511"


# docs/launch.md.


def table() -> list[str]:
    """The commands of the table of launches."""
    rows = PAGE.split("| launch | how |\n| --- | --- |\n")[1].split("\n\n")[0].splitlines()
    return [re.findall(r"`(.*?)`", row.split("|")[2])[0] for row in rows]


def test_each_file_has_the_line_that_starts_it() -> None:
    named = re.findall(r"launch_configs/[\w/]+\.(?:yaml|sh)", "\n".join(table()))
    starts = [p for f in ("accelerate/*", "slurm/*", "kubernetes/*") for p in FOLDER.glob(f) if p.name != "job.sh"]
    assert sorted(named) == sorted(str(p.relative_to(ROOT)) for p in starts)
    rows = PAGE.split("| launch | how |")[1]
    assert all(word in rows for word in ("docker run", "`Dockerfile`", "launch_configs/container.sh"))


@pytest.mark.parametrize("name", FILES)
def test_the_line_that_starts_it_says_what_its_kind_needs(name: str) -> None:
    (line,) = (command for command in table() if f"/{name}.yaml" in command)
    words = shlex.split(line.replace(" N ", " 1 "))
    assert words[:2] == ["accelerate", "launch"]
    options = words[2 : words.index("-m")]
    assert words[words.index("-m") :] == ["-m", "savae_dist.train", "..."]
    arguments = launcher(*options)
    assert arguments.num_processes == FILES[name]["num_processes"]
    if name.startswith("gpu_nodes"):
        assert arguments.main_process_ip == "HEAD"
        # The launch file's own word for it is not heard: Accelerate's command line has a default.
        assert arguments.rdzv_backend == FILES[name]["rdzv_backend"]
    assert (arguments.machine_rank, arguments.max_restarts) == {
        "gpu_nodes_static": (1, 0),
        "gpu_nodes_elastic": (0, 3),
    }.get(name, (0, 0))


# Kubernetes.


def manifests(name: str) -> dict[str, dict[str, Any]]:
    return {m["kind"]: m for m in yaml.safe_load_all((FOLDER / "kubernetes" / f"{name}.yaml").read_text())}


PACKING = {
    manifest["metadata"]["name"].removeprefix("savae-pack-"): manifest
    for manifest in yaml.safe_load_all((FOLDER / "kubernetes" / "pack.yaml").read_text())
}
CLAIM, RUNTIME = (manifests("runtime")[kind] for kind in ("PersistentVolumeClaim", "TrainingRuntime"))
JOB = manifests("trainjob")["TrainJob"]
(REPLICATED,) = RUNTIME["spec"]["template"]["spec"]["replicatedJobs"]
POD = REPLICATED["template"]["spec"]["template"]["spec"]
(NODE_CONTAINER,) = POD["containers"]
MODELS = {
    "runtime": (models.TrainerV1alpha1TrainingRuntime, RUNTIME),
    "trainjob": (models.TrainerV1alpha1TrainJob, JOB),
    "claim": (models.IoK8sApiCoreV1PersistentVolumeClaim, CLAIM),
    **{f"pack {name}": (models.IoK8sApiBatchV1Job, job) for name, job in PACKING.items()},
}


@pytest.mark.parametrize("model", MODELS)
def test_the_api_knows_every_field(model: str) -> None:
    """Its models drop what they do not know, and refuse wrong types."""
    kind, manifest = MODELS[model]
    assert kind.from_dict(manifest).to_dict() == manifest


def test_the_models_can_refuse() -> None:
    wrong = {**JOB, "spec": {**JOB["spec"], "trainer": {"numNodes": "two"}}}
    with pytest.raises(ValueError, match=r"num_?[nN]odes"):
        models.TrainerV1alpha1TrainJob.from_dict(wrong)
    unknown = {**JOB, "spec": {**JOB["spec"], "trainer": {"nodes": 2}}}
    assert models.TrainerV1alpha1TrainJob.from_dict(unknown).to_dict() != unknown


def test_the_torch_plugin_finds_its_container() -> None:
    """It looks for this label and these names, and sets PET_*; PET_* of one's own it refuses."""
    assert (RUNTIME["apiVersion"], JOB["apiVersion"]) == ("trainer.kubeflow.org/v1alpha1",) * 2
    assert RUNTIME["spec"]["mlPolicy"]["torch"] == {}
    assert (REPLICATED["name"], NODE_CONTAINER["name"]) == ("node", "node")
    assert REPLICATED["template"]["metadata"]["labels"]["trainer.kubeflow.org/trainjob-ancestor-step"] == "trainer"
    reference = JOB["spec"]["runtimeRef"]
    assert (reference["kind"], reference["name"]) == (RUNTIME["kind"], RUNTIME["metadata"]["name"])
    names = {one["name"] for one in NODE_CONTAINER["env"] + JOB["spec"]["trainer"].get("env", [])}
    assert not any(name.startswith("PET_") for name in names)


def test_one_process_per_gpu() -> None:
    trainer = JOB["spec"]["trainer"]
    for kind in ("requests", "limits"):
        assert int(trainer["resourcesPerNode"][kind]["nvidia.com/gpu"]) == trainer["numProcPerNode"]
    assert trainer["resourcesPerNode"]["requests"]["memory"] == trainer["resourcesPerNode"]["limits"]["memory"]


def test_it_is_started_by_the_image_s_entry_point_with_torchrun() -> None:
    dockerfile = (ROOT / "Dockerfile").read_text()
    (command,) = NODE_CONTAINER["command"]
    assert f"launch_configs/container.sh /usr/local/bin/{command}\n" in dockerfile
    assert f'ENTRYPOINT ["{command}"]' in dockerfile
    assert {"name": "LAUNCHER", "value": "torchrun"} in NODE_CONTAINER["env"]
    assert f"USER_ID={POD['securityContext']['runAsUser']}" in dockerfile
    assert (FOLDER / "container.sh").stat().st_mode & 0o111 == 0o111


def test_its_arguments_are_keys() -> None:
    config = load(JOB["spec"]["trainer"]["args"])
    mounted = NODE_CONTAINER["volumeMounts"][0]["mountPath"]
    for folder in (config.output, config.data.train, config.data.validation):
        assert str(folder).startswith(f"{mounted}/")


def test_the_volumes() -> None:
    volumes = {volume.pop("name"): volume for volume in (dict(v) for v in POD["volumes"])}
    assert {mount["name"]: mount["mountPath"] for mount in NODE_CONTAINER["volumeMounts"]} == {
        "savae": "/data",
        "shared-memory": "/dev/shm",
    }
    assert volumes["savae"]["persistentVolumeClaim"]["claimName"] == CLAIM["metadata"]["name"]
    assert volumes["shared-memory"]["emptyDir"] == {"medium": "Memory", "sizeLimit": "8Gi"}
    assert CLAIM["spec"]["accessModes"] == ["ReadWriteMany"]


def test_it_starts_again_after_the_codes_that_allow_it() -> None:
    final = {kind.code for kind in errors.UserError.__subclasses__()} - {errors.Preempted.code}
    job = REPLICATED["template"]["spec"]
    (rule,) = job["podFailurePolicy"]["rules"]
    assert rule["action"] == "FailJob"
    assert rule["onExitCodes"] == {"containerName": "node", "operator": "In", "values": sorted(final)}
    assert (POD["restartPolicy"], job["backoffLimit"]) == ("Never", 0)  # a peer's loss ends the pod: all start again
    policy = RUNTIME["spec"]["template"]["spec"]["failurePolicy"]
    assert policy["maxRestarts"] > 0
    (stop,) = policy["rules"]
    assert (stop["action"], stop["onJobFailureReasons"]) == ("FailJobSet", ["PodFailurePolicy"])


def test_there_is_time_to_save() -> None:
    (left,) = (int(e["value"]) for e in NODE_CONTAINER["env"] if e["name"] == "TORCH_ELASTIC_SHUTDOWN_TIMEOUT")
    assert 60 <= left < POD["terminationGracePeriodSeconds"]
