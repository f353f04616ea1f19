"""Remedies that nobody tried together: they train, or the config is refused in one line."""

import itertools
import math

import numpy as np
import pytest

from biggan_jax import config as config_lib
from tests import runs, small_folder

REMEDIES = {
    "diffaugment": ("augment.policy=diffaugment",),
    "ada": ("augment.policy=ada", "augment.groups=colour,noise,cutout"),
    "held_out": ("augment.heuristic=held_out", "augment.target=0.5", "data.holdout=0.3"),
    "lecam": ("regularizer.lecam=0.3", "regularizer.lecam_start_step=0"),
    "consistency": (
        *("regularizer.consistency=10", "regularizer.zcr_d=5", "regularizer.zcr_g=0.5"),
    ),
    "wgan_gp": ("regularizer.wgan_gp=10", "model.d_spectral_norm=False"),
    "dragan": ("regularizer.dragan=10",),
    "r1": ("regularizer.r1=1",),
    "r2": ("regularizer.r2=1",),
    "san": ("model.d_head=san",),
    "group_spectral": ("regularizer.g_group_spectral=0.5", "regularizer.g_spectral_beta=0.99"),
    "balance": ("data.balance=1",),
    "fake_labels": ("data.fake_labels=data",),
    "decays": ("ema.decays=0.5,0.9",),
    "profiles": ("ema.profiles=0.05",),
    "accumulation": ("accumulation_steps=2",),
    "lazy": ("regularizer.every_steps=2",),
    "relativistic": ("loss=relativistic",),
    "sigma_clamp": ("regularizer.g_sigma_clamp=1", "regularizer.d_sigma_clamp=1"),
    "rollback": ("guard.action=rollback", "guard.every_steps=1", "guard.diversity_every_steps=1"),
}


def rows():
    """Sets of remedies: all of them, and others in which each stands without each other one."""
    names = [name for name in REMEDIES if name not in ("diffaugment", "ada")]
    found = [{*names, "diffaugment"}, {*names, "ada"}]
    missing = set(itertools.permutations(REMEDIES, 2))
    for row in found:
        missing -= {(a, b) for a, b in missing if a in row and b not in row}
    rng = np.random.default_rng(0)
    while missing:
        drawn = []
        for policy in 10 * ((), ("ada",), ("diffaugment",)):
            half = rng.permutation(names)[: len(names) // 2].tolist()
            drawn.append({*half, *policy})
        best = max(drawn, key=lambda row: sum(a in row and b not in row for a, b in missing))
        missing -= {(a, b) for a, b in missing if a in best and b not in best}
        found.append(best)
    return found


ROWS = rows()


def overrides(row):
    settings = [f"--config.{text}" for name in REMEDIES if name in row for text in REMEDIES[name]]
    if "wgan_gp" in row and "relativistic" not in row:
        settings.append("--config.loss=wasserstein")
    return settings


SHORT = ("--config.num_steps=2", "--config.checkpoint_every_steps=2", "--config.eval_samples=9")


def trained(tmp_path, *settings):
    """(exit code, lines of metrics.jsonl) of two steps."""
    workdir = tmp_path / "run"
    code = runs.train(workdir, *SHORT, *settings)
    return code, runs.metric_lines(workdir) if (workdir / "metrics.jsonl").exists() else []


def assert_finite(lines):
    assert [line["step"] for line in lines if "d_loss" in line] == [1, 2]
    assert all(math.isfinite(value) for line in lines for value in line.values())


@pytest.mark.full
@pytest.mark.parametrize("row", [pytest.param(row, id=f"{i}") for i, row in enumerate(ROWS)])
def test_pairs_of_remedies_train(row, tmp_path):
    """Every two of them are on together in some row, and each is on without each other one."""
    more = "--config.monitor_every_steps=1"
    code, lines = trained(
        tmp_path, *small_folder.make(tmp_path / "data", (1, 5, 14)), *overrides(row), more
    )
    assert code == 0, sorted(row)
    assert_finite(lines)


def test_all_pairs_are_there():
    """Both on, and one without the other; the config alone refuses none of the rows."""
    for a, b in itertools.permutations(REMEDIES, 2):
        assert any(a in row and b not in row for row in ROWS), (a, b)
        together = any({a, b} <= row for row in ROWS)
        assert together or {a, b} == {"diffaugment", "ada"}, (a, b)
    for row in ROWS:
        config_lib.validate(runs.tiny_config(*overrides(row)), 1)


# What depends on the data; penalties, which take longest to compile, do not.
OF_DATA = overrides(
    ["ada", "held_out", "lecam", "group_spectral", "balance", "fake_labels", "rollback", "san"]
)
ONE = "--config.regularizer.g_group_spectral=0"  # which asks for batch norms that know classes


@pytest.mark.full
@pytest.mark.parametrize(
    ("counts", "more"),
    [
        ((1,), ("--config.data.holdout=0", "--config.augment.heuristic=signs", ONE)),
        ((1, 4), ()),
        ((1, 1, 1, 1, 1), ()),
        ((40,), ()),  # which is refused
        ((3, 40), ("--config.model.num_classes=1", "--config.num_d_steps=2", ONE)),
    ],
)
def test_small_sets_train_or_are_refused(counts, more, tmp_path, capsys):
    """Smaller than a batch, classes of one image, one class, five images in all."""
    code, lines = trained(tmp_path, *small_folder.make(tmp_path / "data", counts), *OF_DATA, *more)
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err
    if code == 0:
        assert_finite(lines)
    else:
        last = captured.err.splitlines()[-1]
        assert code == 2 and last.startswith("biggan: ") and "--config." in last, last
