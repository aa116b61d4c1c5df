"""The ready files for clusters: what they start exists, and what they contain is what its reader accepts."""

from __future__ import annotations

import argparse
import os
import re
import secrets
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config
from ray.scripts.scripts import start as ray_start

from search.flags import search_parser

FOLDER = Path(__file__).resolve().parents[2] / "search" / "cluster"
SCRIPTS = sorted(FOLDER.glob("*.sh"))
PAGES = sorted(FOLDER.glob("*.md"))
FIXED_WHEN_STARTED = {"--space", "--data", "--trials", "--budget", "--folds", "--seed", "--name", "--set"}

# Source: "KubeRay CRD API reference", ray.io/v1, KubeRay 1.6.
RAY_JOB = {
    "activeDeadlineSeconds", "backoffLimit", "clusterSelector", "deletionStrategy", "entrypoint", "entrypointNumCpus",
    "entrypointNumGpus", "entrypointResources", "jobId", "managedBy", "metadata", "preRunningDeadlineSeconds",
    "rayClusterSpec", "runtimeEnvYAML", "shutdownAfterJobFinishes", "submissionMode", "submitterConfig",
    "submitterPodTemplate", "suspend", "ttlSecondsAfterFinished",
}  # fmt: skip
RAY_CLUSTER = {
    "authOptions", "autoscalerOptions", "enableInTreeAutoscaling", "gcsFaultToleranceOptions", "headGroupSpec",
    "headServiceAnnotations", "managedBy", "networkPolicy", "rayVersion", "suspend", "upgradeStrategy",
    "workerGroupSpecs",
}  # fmt: skip
HEAD_GROUP = {
    "enableIngress", "headService", "labels", "rayStartParams", "resources", "serviceType", "template",
}  # fmt: skip
WORKER_GROUP = {
    "groupName", "idleTimeoutSeconds", "labels", "maxReplicas", "minReplicas", "numOfHosts", "rayStartParams",
    "replicas", "resources", "scaleStrategy", "suspend", "template",
}  # fmt: skip


def flags_of(parser: argparse.ArgumentParser) -> set[str]:
    return {flag for action in parser._actions for flag in action.option_strings}


def ray_start_flags() -> set[str]:
    return {flag for option in ray_start.params for flag in option.opts}


def shell(path: Path) -> str:
    """A file's commands with continued lines joined, without comments of their own lines."""
    text = path.read_text().replace("\\\n", " ")
    return "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))


def ray_job() -> dict[str, Any]:
    documents = list(yaml.safe_load_all((FOLDER / "kuberay_rayjob.yaml").read_text()))
    found: dict[str, Any] = next(each for each in documents if each["kind"] == "RayJob")
    return found


def pod_templates() -> list[dict[str, Any]]:
    cluster = ray_job()["spec"]["rayClusterSpec"]
    return [group["template"]["spec"] for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"])]


def test_every_file_has_its_page_and_every_page_is_in_the_index() -> None:
    index = (FOLDER / "README.md").read_text()
    files = [path.name for path in FOLDER.iterdir() if path.is_file() and path.name != "README.md"]
    assert len(files) >= 9
    assert [name for name in files if f"`{name}`" not in index and f"({name})" not in index] == []
    for page in PAGES:
        for target in re.findall(r"\]\(([^)]+)\)", page.read_text()):
            assert (FOLDER / target).exists(), f"{page.name} leads to {target}"


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_the_shell_and_its_checker_accept_every_script(script: Path) -> None:
    subprocess.run(["bash", "-n", script], check=True)
    checker = shutil.which("shellcheck", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    if checker is None:
        pytest.skip("shellcheck is not installed")
    found = subprocess.run([checker, script], text=True, capture_output=True, check=False)
    assert found.returncode == 0, found.stdout


def test_ray_accepts_the_cluster_file() -> None:
    validate_config(prepare_config(yaml.safe_load((FOLDER / "ray_cluster.yaml").read_text())))


def test_the_cluster_file_starts_nodes_with_a_token_and_flags_that_ray_has() -> None:
    config = yaml.safe_load((FOLDER / "ray_cluster.yaml").read_text())
    commands = [*config["head_start_ray_commands"], *config["worker_start_ray_commands"]]
    starts = [command for command in commands if "ray start" in command]
    assert len(starts) == 2
    for command in starts:
        assert "RAY_AUTH_MODE=token" in command
        assert {word.partition("=")[0] for word in command.split() if word.startswith("--")} <= ray_start_flags()
    assert "~/.ray/auth_token" in config["file_mounts"]


def test_files_that_must_be_set_name_hosts_that_do_not_exist() -> None:
    config = yaml.safe_load((FOLDER / "ray_cluster.yaml").read_text())["provider"]
    assert all(host.endswith(".invalid") for host in (config["head_ip"], *config["worker_ips"]))
    for pod in pod_templates():
        assert pod["containers"][0]["image"].partition("/")[0].endswith(".invalid")


def test_the_kuberay_manifest_has_no_field_that_kuberay_does_not_know() -> None:
    job = ray_job()
    assert job["apiVersion"] == "ray.io/v1"
    assert set(job["spec"]) <= RAY_JOB
    cluster = job["spec"]["rayClusterSpec"]
    assert set(cluster) <= RAY_CLUSTER
    assert set(cluster["headGroupSpec"]) <= HEAD_GROUP
    assert {"rayStartParams", "template"} <= set(cluster["headGroupSpec"])
    for group in cluster["workerGroupSpecs"]:
        assert set(group) <= WORKER_GROUP
        assert {"groupName", "rayStartParams", "template", "maxReplicas", "minReplicas"} <= set(group)
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        assert all(isinstance(value, str) for value in group["rayStartParams"].values())
        assert {f"--{name}" for name in group["rayStartParams"]} <= ray_start_flags()


def test_pods_get_what_they_ask_for_and_no_rights() -> None:
    for pod in pod_templates():
        for container in pod["containers"]:
            assert container["resources"]["requests"] == container["resources"]["limits"]
            assert not container["image"].endswith(":latest")
            assert ":" in container["image"]
            assert container["securityContext"]["allowPrivilegeEscalation"] is False
            assert "privileged" not in container["securityContext"]
            assert all(isinstance(each["value"], str) for each in container["env"])
    _, worker = pod_templates()
    assert worker["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == "1"


def test_all_pods_share_one_volume_that_many_can_write() -> None:
    documents = list(yaml.safe_load_all((FOLDER / "kuberay_rayjob.yaml").read_text()))
    (claim,) = [each for each in documents if each["kind"] == "PersistentVolumeClaim"]
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
    for pod in pod_templates():
        (volume,) = pod["volumes"]
        assert volume["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]
        assert pod["containers"][0]["volumeMounts"] == [{"name": volume["name"], "mountPath": "/shared"}]


def test_the_kuberay_job_keeps_tokens_on_goes_on_and_lets_a_search_stop_in_order() -> None:
    spec = ray_job()["spec"]
    assert spec["rayClusterSpec"]["authOptions"]["mode"] == "token"
    assert spec["backoffLimit"] > 0
    head, _ = pod_templates()
    assert head["terminationGracePeriodSeconds"] >= 45
    (container,) = head["containers"]
    script = container["lifecycle"]["preStop"]["exec"]["command"][2]
    subprocess.run(["bash", "-n", "-c", script], check=True)
    assert "GENMIX_PID_FILE" in {each["name"] for each in container["env"]}
    assert "GENMIX_PID_FILE" in script
    assert "GENMIX_PID_FILE" in (FOLDER / "start_or_resume.sh").read_text()


def entry_points() -> list[str]:
    """Every command line of the files that starts a search by ``start_or_resume.sh``."""
    texts = [shell(path) for path in (*PAGES, FOLDER / "slurm.sh")]
    texts.append((FOLDER / "slurm.sh").read_text())
    lines = [line.lstrip("# ") for text in texts for line in text.splitlines()]
    return [ray_job()["spec"]["entrypoint"], *(line for line in lines if " -- --space" in line)]


def test_the_examples_divide_their_flags_into_those_of_every_attempt_and_those_of_a_new_search() -> None:
    commands = entry_points()
    assert len(commands) >= 4
    known = flags_of(search_parser({}))
    for command in commands:
        _, _, rest = command.partition("start_or_resume.sh")
        words = shlex.split((rest or command.partition("slurm.sh")[2]).rstrip("'"))
        every, new = words[: words.index("--")], words[words.index("--") + 1 :]
        for part in (every, new):
            assert {word for word in part if word.startswith("--")} <= known
        assert not FIXED_WHEN_STARTED & set(every)
        assert {"--space", "--data"} <= set(new)


def test_the_pages_name_only_flags_that_exist() -> None:
    known = flags_of(search_parser({})) | ray_start_flags()
    others = {
        "--generate", "--tmux", "--nodes", "--cpus-per-task", "--gpus-per-node", "--signal", "--no-kill", "--requeue",
        "--batch", "--from-literal", "--follow", "--selector", "--no-cache-dir", "--chown", "--artifacts-destination",
    }  # fmt: skip
    for page in PAGES:
        named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", page.read_text()))
        assert named <= known | others, page.name


def started(folder: Path, *arguments: str) -> list[str]:
    """The command line that ``start_or_resume.sh`` runs in the end."""
    (folder / "bin").mkdir(exist_ok=True)
    python = folder / "bin" / "python"
    python.write_text('#!/usr/bin/env bash\nprintf "%s\\n" "$@"\n')
    python.chmod(0o755)
    done = subprocess.run(
        ["bash", FOLDER / "start_or_resume.sh", str(folder / "searches"), "first", *arguments],
        env={**os.environ, "PATH": f"{folder / 'bin'}:{os.environ['PATH']}", "GENMIX_PID_FILE": str(folder / "pid")},
        text=True, capture_output=True, check=True,
    )  # fmt: skip
    assert int((folder / "pid").read_text()) > 1
    return done.stdout.splitlines()[1:]


def test_a_search_that_is_there_is_resumed_without_the_flags_that_are_fixed(tmp_path: Path) -> None:
    storage = str(tmp_path / "searches")
    arguments = ("--address", "h:1", "--gpus-per-trial", "1", "--", "--space", "a space", "--data", "d")
    new = ["--storage", storage, "--name", "first", "--address", "h:1", "--gpus-per-trial", "1"]
    assert started(tmp_path, *arguments) == [*new, "--space", "a space", "--data", "d"]
    (tmp_path / "searches" / "first").mkdir(parents=True)
    assert started(tmp_path, *arguments) == [*new, "--space", "a space", "--data", "d"]
    assert not (tmp_path / "searches" / "first").exists(), "an empty folder would refuse the name"
    (tmp_path / "searches" / "first").mkdir()
    (tmp_path / "searches" / "first" / "search.json").touch()
    again = ["--storage", storage, "--resume", "first", "--address", "h:1", "--gpus-per-trial", "1"]
    assert started(tmp_path, *arguments) == again
    assert started(tmp_path) == again[:4]


@pytest.mark.parametrize("missing", ["GENMIX_STORAGE", "GENMIX_NAME", "SLURM_CPUS_PER_TASK"])
def test_the_slurm_script_refuses_to_start_while_something_is_unset(missing: str, tmp_path: Path) -> None:
    settings = {
        "GENMIX_STORAGE": str(tmp_path), "GENMIX_NAME": "a", "SLURM_JOB_ID": "1", "SLURM_JOB_NODELIST": "n",
        "SLURM_CPUS_PER_TASK": "1", "SLURM_SUBMIT_DIR": str(tmp_path),
    }  # fmt: skip
    del settings[missing]
    done = subprocess.run(
        ["bash", FOLDER / "slurm.sh"],
        env={"PATH": os.environ["PATH"], **settings}, text=True, capture_output=True, check=False,
    )  # fmt: skip
    assert done.returncode != 0
    assert f"{missing}: " in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_the_slurm_script_asks_for_a_signal_before_the_time_limit_and_may_be_queued_again() -> None:
    asked = re.findall(r"^#SBATCH (\S+)", (FOLDER / "slurm.sh").read_text(), re.MULTILINE)
    assert {"--requeue", "--no-kill", "--open-mode=append"} <= set(asked)
    (seconds,) = [int(each.rpartition("@")[2]) for each in asked if each.startswith("--signal=B:USR1@")]
    assert seconds >= 60, "Slurm may be late by a minute, and a search takes half a minute to stop"


FAKES = {
    "srun": 'while [ "${1#--}" != "$1" ]; do shift; done\nexec "$@"',
    "scontrol": 'case "$1" in show) printf "node0\\nnode1\\n" ;; *) echo "$@" > "$TEST/asked" ;; esac',
    "ray": """
echo "$@" >> "$TEST/ray"
for word in "$@"; do case "$word" in --temp-dir=*) folder=${word#*=} ;; esac; done
sleep "${HEAD_LATE:-0}"
mkdir -p "$folder" && echo 127.0.0.1:1 > "$folder/ray_current_cluster"
echo $$ >> "$TEST/nodes"
exec sleep 100
""",
    "python": """
case "$1" in
    -)
        cat > /dev/null
        echo "$2" > "$TEST/waiting"
        exec sleep "${NODES_LATE:-0}"
        ;;
    -c) exec "$REAL_PYTHON" "$@" ;;
    *)
        stat -c %a "$RAY_AUTH_TOKEN_PATH" > "$TEST/mode"
        [ "$ENDS_WITH" = signal ] || exit "$ENDS_WITH"
        trap 'sleep 0.3; exit 143' TERM
        echo "$@" > "$TEST/running"
        while true; do sleep 0.05; done
        ;;
esac
""",
}


def slurm_job(folder: Path, *, ends_with: str, **more: str) -> subprocess.Popen[str]:
    """The Slurm script, with stand-ins for Slurm, Ray and the search; ``more`` are variables for it and for them."""
    (folder / "bin").mkdir()
    for name, body in FAKES.items():
        (folder / "bin" / name).write_text(f"#!/usr/bin/env bash\n{body}\n")
        (folder / "bin" / name).chmod(0o755)
    settings = {
        "PATH": f"{folder / 'bin'}:{os.environ['PATH']}", "REAL_PYTHON": sys.executable, "TEST": str(folder),
        "GENMIX_STORAGE": str(folder / "searches"), "GENMIX_NAME": "a", "SLURM_JOB_ID": f"test-{secrets.token_hex(4)}",
        "SLURM_JOB_NODELIST": "node[0-1]", "SLURM_CPUS_PER_TASK": "3", "SLURM_SUBMIT_DIR": str(FOLDER.parents[1]),
        "ENDS_WITH": ends_with, **more,
    }  # fmt: skip
    return subprocess.Popen(
        ["bash", FOLDER / "slurm.sh", "--gpus-per-trial", "1", "--", "--space", "a b"],
        env=settings, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.skipif(sys.platform != "linux", reason="Slurm and /proc are Linux's")
@pytest.mark.parametrize(
    ("sent", "ends_with", "code", "queued_again"),
    [
        (signal.SIGUSR1, "signal", 143, True),
        (signal.SIGTERM, "signal", 143, False),
        (None, "0", 0, False),
        (None, "75", 75, False),
    ],
)
def test_a_slurm_job_stops_in_order_and_is_queued_again_only_near_its_time_limit(
    sent: signal.Signals | None, ends_with: str, code: int, queued_again: bool, tmp_path: Path
) -> None:
    job = slurm_job(tmp_path, ends_with=ends_with)
    deadline = time.monotonic() + 30
    while sent is not None and not (tmp_path / "running").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    if sent is not None:
        job.send_signal(sent)
    said, _ = job.communicate(timeout=30)
    assert job.returncode == code, said
    assert (tmp_path / "asked").exists() == queued_again
    assert (tmp_path / "mode").read_text() == "600\n"
    head, worker = (tmp_path / "ray").read_text().splitlines()
    assert head.startswith("start --head --port=0")
    assert worker.startswith("start --address=127.0.0.1:1 ")
    for line in (head, worker):
        assert "--num-cpus=3" in line
        assert {word.partition("=")[0] for word in line.split()[1:]} <= ray_start_flags()
    assert not any(is_alive(int(pid)) for pid in (tmp_path / "nodes").read_text().split()), "nodes outlive their job"
    assert list((tmp_path / "searches").iterdir()) == [], "the token outlives its job"


@pytest.mark.skipif(sys.platform != "linux", reason="Slurm and /proc are Linux's")
@pytest.mark.parametrize(("late", "seconds"), [("HEAD_LATE", "3"), ("NODES_LATE", "60")])
@pytest.mark.parametrize(("sent", "queued_again"), [(signal.SIGUSR1, True), (signal.SIGTERM, False)])
def test_a_slurm_job_that_is_stopped_before_its_search_starts_none(
    late: str, seconds: str, sent: signal.Signals, queued_again: bool, tmp_path: Path
) -> None:
    job = slurm_job(tmp_path, ends_with="0", **{late: seconds})
    deadline = time.monotonic() + 30
    sign = tmp_path / ("ray" if late == "HEAD_LATE" else "waiting")
    while not sign.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    job.send_signal(sent)
    try:
        said, _ = job.communicate(timeout=15)
    finally:
        job.kill()
    assert job.returncode == 143, said
    assert (tmp_path / "asked").exists() == queued_again
    assert not (tmp_path / "mode").exists(), "the search has started"
    assert list((tmp_path / "searches").iterdir()) == []


@pytest.mark.skipif(sys.platform != "linux", reason="Slurm and /proc are Linux's")
def test_a_slurm_job_that_is_queued_again_asks_its_own_head_for_the_address(tmp_path: Path) -> None:
    number = f"test-{secrets.token_hex(4)}"
    stale = Path("/tmp") / f"genmix-ray-{number}"  # noqa: S108 - where the script has it
    stale.mkdir()
    (stale / "ray_current_cluster").write_text("127.0.0.1:666")
    job = slurm_job(tmp_path, ends_with="0", HEAD_LATE="0.5", SLURM_JOB_ID=number)
    said, _ = job.communicate(timeout=30)
    assert job.returncode == 0, said
    assert (tmp_path / "waiting").read_text() == "127.0.0.1:1\n"
    assert not stale.exists()
