"""Commands of README and docs as `test_docs_run` runs them: shortened, or left out for a reason."""

import re

from biggan_jax.errors import UserError
from tests import page_checks, pages, runs

WALKED = tuple(page for page in pages.PAGES if page != "CONTRIBUTING.md")

# First words of what is no program of ours, and why it is not run.
OTHERS = {
    **dict.fromkeys(("make", "pip", ".venv/bin/pip"), "installs packages"),
    **dict.fromkeys(("gcloud", "kubectl", "docker", "launch/tpu_vm.sh"), "needs a cloud"),
    **dict.fromkeys(("for", "done"), "the loop around gcloud"),
    "ssh": "needs a server",
    "curl": "needs the page of `explore` (test_docs_run sends what it sends)",
    "printf": "writes the file for docker",
    "sbatch": "needs a cluster",
    "bash": "hands lines to sbatch",
    "python": "first_thousand.py, the Python block below it, needs Debian's Fashion-MNIST",
}
# What own_images.md shows of a folder, and of what `doctor` prints.
OUTPUT = ("pets/", "cat/", "dog/", "data", "images", "left", "ignored,")
# Commands of ours (a pattern), and why they are not run.
NOT_HERE = {
    r"gs://": "needs a bucket (tests/storage has a stand-in)",
    r"hf://": "needs the Hugging Face Hub (tests/interop/test_hub.py has a stand-in)",
    r"--coordinator": "needs two hosts (tests/parallel runs two processes)",
    r"^biggan plan ": "needs the TPU compiler of the extra tpu (tests/planning)",
    r"^biggan score ": "needs images and features of others (tests/evaluation/test_score.py)",
    r"--format onnx": "needs the extra onnx (tests/interop/test_programs.py)",
    r"--format inception-fid": "needs the published Inception file (tests/metrics)",
    r"--format dinov2": "needs the published weights (tests/metrics)",
    r"--against FILE": "needs a recording (those of docs/import.md are run)",
    r"bench --suite": "times a fixed list of full-size shapes for minutes (tests/planning)",
    r"--source imagenet:": "needs ImageNet (tests/data makes small ones of every layout)",
    r"bench --(layers|data)$|biggan (bench|doctor|inspect|plan)$": "a name, no command",
    r"inspect --spectra F.png": "half a command: it names an option",
}
# A word of a command -> what stands in its place.
REPLACED = {
    **{"DIR": "runs/digits", "FOLDER": "runs/swept", "SPEC": "digits", "R": "16"},
    **{"KIND": "grid", "K": "2", "FILE": "digits", "F": "digits"},
    **{"SPEC:test": "digits:test", "N": "90", "T": "0.5", "M": "batch"},
    **{"SOURCE": "weights/BigGAN_I128", "KEY=A,B": "seed=1,2", "16,8;4,28": "8,4;2,14"},
    **{"FILE|NAME": "digits", "folder:PATH": "folder:pets", "animals,food": "cat,dog"},
    **{"batch_size=16,32,64": "batch_size=16,32", "model.ch=8,16": "model.ch=4"},
    **{"/shared/table1": "table1", "folder:/usr/share/openclipart/png": "folder:pets"},
    **{"runs/plain@40000": "runs/digits@2", "runs/calm@400": "runs/calm@2"},
    "folder:fashion_1000": "folder:pets",
}
WRITTEN = ("--out", "--workdir", "init")  # behind them DIR and FOLDER are new ones
SHORT = runs.TINY[1:]
SWEPT = tuple(word for word in SHORT if "batch_size" not in word and ".ch=" not in word)
ONE_CHANNEL = ("--config.model.channels=1", "--config.model.num_classes=10")
DIGITS = ("--config.data.source=digits", "--config.model.resolution=16", *ONE_CHANNEL)
D_PLAIN = "--config.model.d_attention=()"
# Commands (a pattern) -> what is put behind them; every pattern that is found counts.
SHORTER = {
    r"^biggan train": (*SHORT, "--config.monitor_every_steps=2"),
    r"^biggan .*--config \S*(fashion_mnist|cifar10|biggan128)": (*DIGITS, D_PLAIN),
    r"train .*(folder|mine/config)": (D_PLAIN, "--config.model.resolution=16"),
    r"train .*folder:": ("--config.data.source=folder:pets", "--config.model.num_classes=2"),
    r"bs256x8": ("--config.bn_group_size=2", "--config.accumulation_steps=2"),
    r"--fork": ("--config.num_steps=6",),
    r"^biggan prepare .*": ("--resolution=16",),
    r"^biggan evaluate --from": ("--samples=90",),
    r"^biggan evaluate .*--follow": ("--bn-mode=running",),
    r"^biggan bench": (*SHORT, "--config.model.num_classes=10"),
    r"^launch/sweep.*digits|^launch/sweep.*FILE": (*SWEPT, "--config.eval_samples=80"),
    r"^launch/sweep.*batch_width": ("--config.eval_every_steps=4",),
    r"^launch/sweep.*runs/table1": ("--print",),
    r"^biggan init": ("--minutes=2",),
    r"^biggan train .*--seeds 8": ("--seeds=2",),
    r"^biggan explore": ("--port=0",),
}


def whole(page: str) -> list[pages.Command]:
    """The commands of a page that something could be started with, each once."""
    found: dict[tuple[str, ...], pages.Command] = {}
    for command in pages.commands(page):
        program = command.program
        if command.partly or command.words in found:
            continue
        if not command.fenced:
            try:
                page_checks.parse((program, *command.words[1:]), lenient=False)
            except UserError:
                continue  # it names an option
        found[command.words] = command
    return list(found.values())


def python_blocks(page: str) -> list[pages.Text]:
    """The blocks of Python of a page."""
    return [block for block in pages.blocks(page) if block.language == "python"]


def reason_not_here(command: pages.Command) -> str | None:
    """Why a command is not run; None for one that is.

    Raises:
      KeyError: it is a program that no table knows.
    """
    text = " ".join((command.program, *command.words[1:]))
    if command.where.startswith("docs/own_images.md") and command.words[0] in OUTPUT:
        return "output"
    if command.program not in ("biggan", "launch/sweep.py"):
        return OTHERS[command.words[0]]
    return next((why for what, why in NOT_HERE.items() if re.search(what, text)), None)


def workdir_of(words: list[str]) -> str:
    """Where a `train` writes: --workdir DIR or --workdir=DIR."""
    at = next(i for i, word in enumerate(words) if word.startswith("--workdir"))
    return words[at].partition("=")[2] or words[at + 1]


def _digit(name: re.Match) -> str:
    """The class of the digits in the place of one of Fashion-MNIST."""
    return str(("Dress", "Sneaker", "Bag", "Ankle boot").index(name[0]))


def shortened(command: pages.Command) -> list[str]:
    """The words of a command as they are run."""
    words = list(command.words[1:])
    for i, word in enumerate(words):
        if i and word in ("DIR", "FOLDER") and words[i - 1] in WRITTEN:
            words[i] = f"made/{command.where.replace('/', '_')}"
        words[i] = REPLACED.get(words[i], words[i])
    words = [re.sub(r"Sneaker|Ankle boot|Bag|Dress", _digit, word) for word in words]
    words = [re.sub(r"folder:(PATH|/usr/share/\S+)$", "folder:pets", word) for word in words]
    text = " ".join((command.program, *command.words[1:]))
    for what, more in SHORTER.items():
        if re.search(what, text):
            words += more
    return words
