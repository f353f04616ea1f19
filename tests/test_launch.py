"""launch/: what the scripts would run on a TPU, on GKE and on Slurm, with stand-ins for those."""

import fcntl
import json
import math
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
import yaml

from biggan_jax import cli
from biggan_jax.cli import train
from biggan_jax.config import config_file
from tests import runs

LAUNCH = runs.ROOT / "launch"
SCRIPTS = sorted([*LAUNCH.glob("*.sh"), *LAUNCH.glob("*.sbatch")])
CONFIG = "configs/biggan128.py"
HERE = str(runs.ROOT / CONFIG)
TPU = ("--name=pod", "--zone=us-central2-b", "--project=mine")
# Words that a shell would take apart.
HARD = ["--config.model.g_attention=(8,)", "--config.data.source=folder:/a b/it's $HOME \\ *"]
# Writes its arguments to calls/, then ends with the next of its codes.
FAKE = """#!{python}
import json, os, signal, sys, time
here = os.path.dirname(os.path.abspath(__file__))
calls = os.path.join(here, os.path.basename(__file__) + ".calls")
with open(calls, "a") as file:
    file.write(json.dumps(sys.argv[1:]) + "\\n")
count = len(open(calls).readlines())
codes = os.environ.get("CODES", "0").split()
code = codes[min(count, len(codes)) - 1]
if code == "wait":
    signal.signal(signal.SIGTERM, lambda n, frame: sys.exit(75))
    print("waiting", flush=True)
    time.sleep(60)
sys.exit(int(code))
"""


def fake(folder: Path, name: str) -> Path:
    """A program that records how it is called; see `calls`."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text(FAKE.format(python=sys.executable))
    path.chmod(0o755)
    return path


def calls(program: Path) -> list[list[str]]:
    path = Path(f"{program}.calls")
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def run(*command, path: Path | None = None, **environment) -> subprocess.CompletedProcess:
    """Runs a script with another PATH in front, where a command gone astray can do no harm."""
    nowhere = tempfile.mkdtemp()
    env = os.environ | {"SUPERVISE_PAUSE": "0", "LIBTPU_LOCKFILE": "/nowhere"}
    env |= {"HOME": nowhere} | environment
    if path is not None:
        env["PATH"] = f"{path}:{env['PATH']}"
    words = list(map(str, command))
    try:
        return subprocess.run(
            words, capture_output=True, text=True, env=env, cwd=nowhere, timeout=60, check=False
        )
    finally:
        shutil.rmtree(nowhere)


@pytest.fixture
def gcloud(tmp_path):
    return fake(tmp_path / "bin", "gcloud")


def tpu_vm(gcloud: Path, *arguments: str) -> subprocess.CompletedProcess:
    return run(LAUNCH / "tpu_vm.sh", *arguments, path=gcloud.parent, TMPDIR=str(gcloud.parent))


def test_shellcheck():
    program = shutil.which("shellcheck", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    assert program, "shellcheck is missing: pip install -e '.[dev]'"
    done = subprocess.run([program, *SCRIPTS], capture_output=True, text=True, check=False)
    assert len(SCRIPTS) >= 4 and done.returncode == 0, done.stdout


COMMANDS = {  # arguments -> what each call of gcloud says, in part
    ("create", "--accelerator-type=v5litepod-256", "--spot"): [
        "queued-resources create pod --accelerator-type=v5litepod-256 --spot --node-id=pod "
        "--runtime-version=v2-alpha-tpuv5-lite"
    ],
    ("create", "--accelerator-type", "v4-128", "--node-count", "2", "--reserved"): [
        "queued-resources create pod --reserved --node-count=2 --node-prefix=pod "
        "--runtime-version=tpu-ubuntu2204-base"
    ],
    ("create", "--no-queue", "--accelerator-type=v6e-8", "--service-account=a@b"): [
        "tpu-vm create pod --version=v2-alpha-tpuv6e --service-account=a@b"
    ],
    ("install",): [
        "queued-resources scp pod:biggan_jax.tar.gz --node=all --worker=all",
        "queued-resources ssh pod --node=all --worker=all",
    ],
    ("install", "--git=https://host/x.git", "--branch=main", "--internal-ip"): [
        "queued-resources ssh pod --node=all --worker=all --internal-ip"
    ],
    ("train", HERE, "gs://bucket/run", *HARD): ["queued-resources ssh --node=all --worker=all"],
    ("status",): ["queued-resources describe --format=value(state.state)", "ssh --worker=all"],
    ("status", "--no-queue"): ["tpu-vm describe --format=value(state)", "tpu-vm ssh --worker=all"],
    ("tail", "--worker=3", "--ssh-flag=-v"): ["ssh pod --node=0 --worker=3 --ssh-flag=-v"],
    ("stop",): ["queued-resources ssh pod --node=all --worker=all"],
    ("delete",): ["queued-resources delete pod --force"],
    ("delete", "--no-queue", "--quiet"): ["tpu-vm delete pod --quiet"],
}


@pytest.mark.parametrize("arguments", COMMANDS, ids=" ".join)
def test_dry_run_prints_what_would_run(gcloud, arguments):
    """Pasted into a shell it makes the very calls that the script makes itself."""
    dry = tpu_vm(gcloud, *arguments, *TPU, "--dry-run")
    assert dry.returncode == 0 and not calls(gcloud) and dry.stderr == ""
    assert not list(gcloud.parent.glob("*.tar.gz"))
    assert run("sh", "-c", dry.stdout, path=gcloud.parent).returncode == 0
    pasted = calls(gcloud)
    assert tpu_vm(gcloud, *arguments, *TPU).returncode == 0
    assert calls(gcloud) == 2 * pasted
    assert len(pasted) == len(COMMANDS[arguments])
    for call, expected in zip(pasted, COMMANDS[arguments], strict=True):
        assert call[:2] == ["compute", "tpus"]
        assert {*expected.split(), "--zone=us-central2-b", "--project=mine"} <= {*call}, call


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "usage"),
        (["fly", *TPU], "unknown command fly"),
        (["status", "--zone=z"], "--name"),
        (["status", "--name=n"], "--zone"),
        (["status", *TPU, "now"], "takes no now"),
        (["status", *TPU, "--workers=3"], "unknown option --workers=3"),
        (["status", *TPU, "--worker"], "--worker needs a value"),
        (["create", *TPU], "--accelerator-type"),
        (["create", *TPU, "--accelerator-type=v9-8"], "--runtime-version"),
        (["create", *TPU, "--accelerator-type=v4-8", "--spot", "--reserved"], "leave one"),
        (["create", *TPU, "--accelerator-type=v4-8", "--node-count=0"], "--node-count is 0"),
        (["create", *TPU, "--accelerator-type=v4-8", "--node-count=2", "--no-queue"], "queue"),
        (["stop", *TPU, "--no-queue", "--tunnel-through-iap"], "--internal-ip"),
        (["train", *TPU, HERE], "CONFIG and WORKDIR"),
        (["train", *TPU, HERE, "runs/a"], "WORKDIR is runs/a"),
        (["train", *TPU, HERE, "gs://bucket"], "gs://BUCKET/FOLDER"),
        (["train", *TPU, "configs/none.py", "gs://b/r"], "no such file"),
        (["train", *TPU, "/etc/hosts", "gs://b/r"], "not inside"),
    ],
)
def test_bad_usage_of_tpu_vm(gcloud, arguments, words):
    done = tpu_vm(gcloud, *arguments)
    assert done.returncode == 2 and words in done.stderr and not calls(gcloud)
    assert len(done.stderr.splitlines()) == 1 or words == "usage"


def home_with_biggan(folder: Path) -> Path:
    """A worker's home folder after an install; its biggan is a fake."""
    (folder / ".biggan" / "src" / "launch").mkdir(parents=True)
    shutil.copy(LAUNCH / "supervise.sh", folder / ".biggan" / "src" / "launch")
    return fake(folder / ".biggan" / "src" / ".venv" / "bin", "biggan")


def remote_command(gcloud: Path, *arguments: str) -> str:
    """What the worker's shell is given."""
    assert tpu_vm(gcloud, *arguments, *TPU).returncode == 0
    (text,) = [word for word in calls(gcloud)[-1] if word.startswith("--command=")]
    return text.removeprefix("--command=")


def on_worker(home: Path, command: str, **environment) -> subprocess.CompletedProcess:
    env = {"HOME": str(home)} | environment
    return run("bash", "-c", f"cd {shlex.quote(str(home))}; {command}", **env)


def wait_for(condition, seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_training_on_a_worker_starts_again_until_it_is_finished(gcloud, tmp_path):
    """Also: the overrides reach biggan as they were typed."""
    home = tmp_path / "home of it's"
    biggan = home_with_biggan(home)
    start = remote_command(gcloud, "train", HERE, "gs://bucket/run", *HARD)
    status = remote_command(gcloud, "status")
    done = on_worker(home, start, CODES="75 75 134 0")
    assert done.returncode == 0 and "started" in done.stdout
    wait_for(lambda: "finished" in on_worker(home, status).stdout)
    expected = ["train", "--config", CONFIG, "--workdir", "gs://bucket/run"]
    assert calls(biggan) == 4 * [[*expected, "--connect-timeout", "600", *HARD]]
    args, overrides = cli.parser().parse_known_args(calls(biggan)[0])
    assert args.workdir == "gs://bucket/run" and overrides == HARD
    log = (home / ".biggan" / "log").read_text()
    assert log.count("starting again") == 3 and "supervise: finished" in log


def test_one_run_a_worker_and_a_stop_that_saves(gcloud, tmp_path):
    home = tmp_path / "home"
    biggan = home_with_biggan(home)
    commands = ("train", HERE, "gs://bucket/run"), ("status",), ("stop",), ("install",)
    start, status, stop, install = (remote_command(gcloud, *words) for words in commands)
    assert on_worker(home, start, CODES="75 wait").returncode == 0
    wait_for(lambda: "waiting" in (home / ".biggan" / "log").read_text())
    second = on_worker(home, start)
    assert second.returncode == 1 and "a run is alive" in second.stderr
    assert "running" in on_worker(home, status).stdout
    assert on_worker(home, install).returncode == 1 and biggan.exists()
    assert "stopped" in on_worker(home, stop).stdout
    assert "ended with exit code 75" in on_worker(home, status).stdout
    assert len(calls(biggan)) == 2
    assert "nothing is running" in on_worker(home, stop).stdout


def test_install_replaces_the_tree_and_keeps_the_environment(gcloud, tmp_path):
    home = tmp_path / "home"
    biggan = home_with_biggan(home)
    (home / ".biggan" / "src" / "old.py").write_text("")
    mine = home / "biggan_jax" / "mine"
    mine.parent.mkdir()
    mine.write_text("")
    command = remote_command(gcloud, "install")
    shutil.copy(gcloud.parent / "biggan_jax.tar.gz", home)
    python = fake(tmp_path / "python", "python3")
    done = run("bash", "-c", f"cd {home} || exit 9; {command}", path=python.parent, HOME=str(home))
    assert done.returncode == 0, done.stderr
    tree = home / ".biggan" / "src"
    assert biggan.exists() and mine.exists() and not (tree / "old.py").exists()
    for name in ("setup.py", "biggan_jax/errors.py", CONFIG, "launch/supervise.sh"):
        assert (tree / name).is_file()
    assert not (tree / ".git").exists() and not (tree / "runs").exists()
    assert calls(python)[-1][-2:] == ["-e", ".[tpu]"]


@pytest.mark.parametrize(
    ("codes", "expected", "count"),
    [
        ("75 75 75 75 75 75 0", 0, 7),  # saved: as often as it takes
        ("1 134 137 0", 137, 3),  # lost peers: three in a row
        ("134 75 2", 2, 3),
        ("130", 130, 1),
    ],
)
def test_supervise_knows_what_to_start_again(tmp_path, codes, expected, count):
    program = fake(tmp_path, "biggan")
    command = [LAUNCH / "supervise.sh", "run", tmp_path / "state", program, "a b"]
    done = run(*command, CODES=codes, SUPERVISE_FAILURES="3")
    assert done.returncode == expected and calls(program) == count * [["a b"]]


def test_supervise_forgets_failures_after_a_good_run(tmp_path):
    program = fake(tmp_path, "biggan")
    command = [LAUNCH / "supervise.sh", "run", tmp_path / "state", program]
    limits = {"SUPERVISE_FAILURES": "2", "SUPERVISE_GOOD_SECONDS": "0"}
    assert run(*command, CODES="1 1 1 0", **limits).returncode == 0


def test_supervise_passes_a_signal_on_and_ends(tmp_path):
    program = fake(tmp_path, "biggan")
    command = [LAUNCH / "supervise.sh", "run", tmp_path / "state", program]
    process = subprocess.Popen(command, env=os.environ | {"CODES": "wait"}, stdout=-1, stderr=-1)
    wait_for(lambda: calls(program))
    time.sleep(0.3)  # its handler
    process.terminate()
    assert "stopped" in process.communicate(timeout=20)[1].decode()
    assert process.returncode == 75 and len(calls(program)) == 1


def test_supervise_refuses_a_taken_tpu(tmp_path):
    program, lock = fake(tmp_path, "biggan"), tmp_path / "libtpu_lockfile"
    command = [LAUNCH / "supervise.sh", "run", tmp_path / "state", program]
    with open(lock, "w") as file:
        fcntl.lockf(file, fcntl.LOCK_EX)
        done = run(*command, LIBTPU_LOCKFILE=str(lock))
        assert done.returncode == 1 and f"process {os.getpid()} holds the TPU" in done.stderr
    assert run(*command, LIBTPU_LOCKFILE=str(lock)).returncode == 0


def test_gke_jobset_holds_together():
    jobset = yaml.safe_load((LAUNCH / "gke_jobset.yaml").read_text())
    assert (jobset["apiVersion"], jobset["kind"]) == ("jobset.x-k8s.io/v1alpha2", "JobSet")
    (job,) = jobset["spec"]["replicatedJobs"]
    job, pod = job["template"]["spec"], job["template"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    chips = container["resources"]["limits"]["google.com/tpu"]
    assert container["resources"]["requests"]["google.com/tpu"] == chips
    topology = pod["nodeSelector"]["cloud.google.com/gke-tpu-topology"]
    assert math.prod(map(int, topology.split("x"))) == job["parallelism"] * chips
    assert job["parallelism"] == job["completions"] and job["completionMode"] == "Indexed"

    # Code 2 is final; any other end of a pod is the end of its Job, which starts all pods again.
    assert job["backoffLimit"] == 0 and pod["restartPolicy"] == "Never"
    (rule,) = job["podFailurePolicy"]["rules"]
    codes = {"containerName": container["name"], "operator": "In", "values": [2]}
    assert rule == {"action": "FailJob", "onExitCodes": codes}
    policy = jobset["spec"]["failurePolicy"]
    assert policy["maxRestarts"] >= 10
    assert policy["rules"] == [
        {"action": "FailJobSet", "onJobFailureReasons": ["PodFailurePolicy"]}
    ]
    assert pod["terminationGracePeriodSeconds"] >= 120

    (program,) = container["command"]
    assert f"{program} = biggan_jax.cli:main" in (runs.ROOT / "setup.py").read_text()
    args, overrides = cli.parser().parse_known_args(container["args"])
    assert args.run is train.run and re.match(r"gs://\w+/\w+", args.workdir)
    config = config_file.load(str(runs.ROOT / args.config), overrides)
    assert config.compute_dtype == "bfloat16"
    variables = {variable["name"] for variable in container["env"]}
    assert config.data.source.startswith("tfds:") and "TFDS_DATA_DIR" in variables


def sbatch(tmp_path: Path, code: int, job: str = "7", **environment):
    """Runs the batch script; srun ends with a code. (its result, calls of srun, of scontrol)"""
    tools = [fake(tmp_path / "bin", name) for name in ("srun", "scontrol")]
    biggan = fake(tmp_path / "tree" / ".venv" / "bin", "biggan")
    slurm = {"SLURM_JOB_ID": job, "SLURM_SUBMIT_DIR": str(biggan.parents[2])}
    wrapper = tools[0].read_text()
    tools[0].write_text(wrapper.replace('os.environ.get("CODES", "0")', repr(str(code))))
    for tool in tools:
        Path(f"{tool}.calls").unlink(missing_ok=True)
    command = [LAUNCH / "slurm.sbatch", CONFIG, "/shared/run", *HARD]
    done = run("bash", *command, path=tools[0].parent, **(slurm | environment))
    return done, calls(tools[0]), calls(tools[1])


def test_slurm_puts_an_unfinished_run_back_into_the_queue(tmp_path):
    done, (call,), again = sbatch(tmp_path, 75)
    assert done.returncode == 0 and again == [["requeue", "7"]]
    biggan = str(tmp_path / "tree" / ".venv" / "bin" / "biggan")
    assert call[call.index(biggan) :] == [
        *(biggan, "train", "--config", CONFIG, "--workdir", "/shared/run"),
        *HARD,
    ]
    for code in (0, 2, 130):
        done, _, again = sbatch(tmp_path, code)
        assert done.returncode == code and again == []


def test_slurm_gives_up_after_failures_in_a_row(tmp_path):
    codes = [134, 1, 75, 1, 137, 134]
    got = [sbatch(tmp_path, code, MAX_FAILURES="3") for code in codes]
    assert [len(again) for _, _, again in got] == [1, 1, 1, 1, 1, 0]
    assert got[-1][0].returncode == 134 and "given up" in got[-1][0].stderr
    assert len(sbatch(tmp_path, 1, job="8", MAX_FAILURES="3")[2]) == 1  # another job


def test_slurm_header_and_bad_usage(tmp_path):
    text = (LAUNCH / "slurm.sbatch").read_text()
    options = dict(re.findall(r"^#SBATCH --([\w-]+)(?:=(\S+))?$", text, re.MULTILINE))
    assert options["signal"] == "TERM@120" and "requeue" in options
    assert options["open-mode"] == "append"
    assert options["ntasks-per-node"] == options["gpus-per-node"]
    for environment, words in (
        ({"SLURM_JOB_ID": ""}, "sbatch"),
        ({"SLURM_JOB_ID": "7", "SLURM_SUBMIT_DIR": str(tmp_path)}, "make .venv"),
    ):
        done = run("bash", LAUNCH / "slurm.sbatch", CONFIG, "/shared/run", **environment)
        assert done.returncode == 2 and words in done.stderr
        assert len(done.stderr.splitlines()) == 1
    assert run("bash", LAUNCH / "slurm.sbatch", CONFIG, SLURM_JOB_ID="7").returncode == 2


@pytest.mark.full
def test_a_simulated_pod_reads_the_same_with_any_number_of_processes():
    options = ["--images=512", "--resolution=8", "--lanes=16", "--batch-size=16", "--steps=40"]
    options += ["--processes=1,4", "--latency=0.001", "--failures=0.1", "--json"]
    done = subprocess.run(
        [sys.executable, str(LAUNCH / "simulated_pod.py"), *options],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    result = json.loads(done.stdout)
    assert result["right"] and [each["shards_each"] for each in result["rows"]] == [16, 4]
    assert {each["digest"] for each in result["rows"]} == {result["resumed"]}
    preempted = result["preempted"]
    assert preempted["kept_shards"] + preempted["fetched_shards"] == 4
    assert preempted["kept_shards"] >= 2
