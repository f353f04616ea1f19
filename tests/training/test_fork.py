"""A run that starts from a checkpoint of another one under other settings."""

import json
import re
import shlex
import shutil

import jax
import numpy as np
import pytest

from biggan_jax import cli
from biggan_jax.storage import best, checkpoint, integrity, paths
from biggan_jax.training import optimizers, origin
from biggan_jax.training import state as state_lib
from biggan_jax.training import workdir as workdir_lib
from tests import killing, runs
from tests.conftest import FULL


def steps(workdir):
    return checkpoint.Checkpoints(workdir / "checkpoints").all_steps()


def fork(workdir, *arguments):
    """`biggan train` without a config of its own; its exit code."""
    return cli.main(["train", f"--workdir={workdir}", *arguments])


def refused(capsys, *words):
    """One line, behind the lines about device and data."""
    lines = capsys.readouterr().err.splitlines()
    assert sum(line.startswith("biggan: ") for line in lines) == 1, lines
    for word in words:
        assert re.search(word, lines[-1]), f"{word!r} is not in {lines[-1]!r}"
    return lines[-1]


@pytest.mark.full
def test_an_unchanged_fork_is_its_origin_and_needs_it_once(run_copy, trained, tmp_path, capsys):
    new = tmp_path / "new"
    named = f"--fork={run_copy}@2"
    assert fork(new, named) == 0
    said = capsys.readouterr().err
    assert f"forked {run_copy} at step 2: no setting is changed\n" in said
    runs.assert_same_state(new, trained, 2)
    runs.assert_same_state(new, trained, 4)
    assert runs.metric_lines(new) == runs.metric_lines(trained)[2:]
    picture = "samples/step_00000004.png"
    assert (new / picture).read_bytes() == (trained / picture).read_bytes()
    assert (new / "samples" / "real.png").read_bytes() == (
        trained / "samples" / "real.png"
    ).read_bytes()
    assert json.loads((new / "fork.json").read_text()) == {
        "from": str(run_copy),
        "step": 2,
        "changes": {},
    }
    assert (new / "fork_metrics.jsonl").read_bytes() == (trained / "metrics.jsonl").read_bytes()
    assert not (new / workdir_lib.HISTORY).exists()

    shutil.rmtree(run_copy)
    for again in ([named], [f"--fork={run_copy}"], []):
        assert fork(new, *again) == 0
        assert f"resuming {new} after step 4 of 4" in capsys.readouterr().err
    assert runs.train(new, named) == 0  # with --config too
    capsys.readouterr()
    for other in (f"{run_copy}@4", f"{trained}@2"):
        assert fork(new, f"--fork={other}") == 2
        refused(capsys, f"{new} holds a fork of {run_copy}@2, not of {other}", "--workdir")
    assert steps(new) == [2, 4]


RULES = ("--config.optimizer.warmup_steps=8", "--config.optimizer.beta1=0.5")


@pytest.mark.full
def test_a_fork_of_other_rules(trained, tmp_path, capsys):
    """A schedule where there was none, moments where there were none, and another seed."""
    new = tmp_path / "new"
    assert fork(new, f"--fork={trained}@2", *RULES, "--config.seed=7") == 0
    line = capsys.readouterr().err
    assert f"forked {trained} at step 2: optimizer.beta1 0.0 -> 0.5 (" in line
    assert "; optimizer.warmup_steps 0 -> 8" in line and "; seed 0 -> 7\n" in line
    changes = {"optimizer.beta1": [0.0, 0.5], "optimizer.warmup_steps": [0, 8], "seed": [0, 7]}
    assert json.loads((new / "fork.json").read_text())["changes"] == changes
    (history,) = map(json.loads, (new / workdir_lib.HISTORY).read_text().splitlines())
    assert history["step"] == 2
    assert history["changes"]["seed"] == {"old": 0, "new": 7}
    assert [line["step"] for line in runs.metric_lines(new)] == [3, 4]
    (before, _), (at, _), (after, _) = (
        runs.load_state(w, n) for w, n in ((trained, 2), (new, 2), (new, 4))
    )
    np.testing.assert_array_equal(
        jax.random.key_data(at.key), jax.random.key_data(jax.random.split(jax.random.key(7), 3)[2])
    )
    for name in ("generator", "discriminator"):
        old, forked, late = (getattr(state, name) for state in (before, at, after))
        for x, y in zip(*(jax.tree.leaves(p.params) for p in (old, forked)), strict=True):
            np.testing.assert_array_equal(x, y)
        assert forked.opt_state[1].count == 2 and late.opt_state[1].count == 4
        assert not any(x.any() for x in jax.tree.leaves(forked.opt_state[0].mu))
        assert forked.opt_state[0].count == 2 and late.opt_state[0].count == 4

    # And the reverse: constant rates again, without first moments.
    back = ("--config.optimizer.warmup_steps=0", "--config.optimizer.beta1=0", "--config.seed=0")
    assert fork(tmp_path / "back", f"--fork={new}@2", *back) == 0
    runs.assert_same_state(tmp_path / "back", trained, 4)


@pytest.mark.full
def test_a_resume_adds_a_schedule_too(run_copy, tmp_path):
    """With the flag, and also where it was killed before its next checkpoint."""
    on = (*RULES, "--config.seed=7", "--config.num_steps=5")
    assert runs.train(run_copy, *on, "--allow-change") == 0
    state, _ = runs.load_state(run_copy)
    assert state.generator.opt_state[1].count == state.discriminator.opt_state[1].count == 5
    killed = shutil.copytree(run_copy, tmp_path / "killed")
    shutil.rmtree(killed / "checkpoints" / "5")
    assert runs.train(killed, *on) == 0  # config.json has the rules, and the checkpoint has not
    runs.assert_same_state(killed, run_copy, 5)


def test_rates_are_where_the_new_settings_have_them():
    """D's count in its own updates, of which the fork may do more; Adam's count stays."""
    config = runs.tiny_config(*RULES, "--config.num_d_steps=3")
    adam = optimizers.adam(config.optimizer, 1.0, 3)
    params = {"kernel": jax.numpy.ones(2)}
    opt_state = adam.init(params)
    player = state_lib.Player(params, {}, {}, opt_state)
    state = state_lib.GANState(0, None, player, player, None)
    found = state_lib.continued(state, 5, {"seed": config.seed}, config, None)
    assert found.generator.opt_state[1].count == 5
    assert found.discriminator.opt_state[1].count == 15
    assert found.discriminator.opt_state[0].count == 0
    # Half of the way through the warm-up of 8 at the generator's update 4.
    share = optimizers.rate(config.optimizer, 1.0, 3)
    assert share(found.discriminator.opt_state[1].count) == 5 / 8 == share(15 + 2)


@pytest.fixture(scope="module")
def scored(trained, tmp_path_factory):
    """A copy of `trained` with a best state."""
    workdir = shutil.copytree(trained, tmp_path_factory.mktemp("scored") / "run")
    config = json.loads((workdir / "config.json").read_text())
    best.keep(workdir, 2, runs.load_state(workdir, 2)[0], config, {"fid": 3.0})
    return workdir


@pytest.mark.parametrize(
    ("place", "more", "words"),
    [
        ("@best", (), ("best holds weights alone", "has the checkpoints 4, 2", "init_from=")),
        ("/best", (), ("best holds weights alone", "has the checkpoints 4, 2", "init_from=")),
        ("@3", (), ("no checkpoint 3", "it has 4, 2")),
        ("@x", (), ("'x' is no step",)),
        ("/nowhere@2", (), ("no workdir or model directory",)),
        ("@4", ("--config.num_steps=3",), ("finished 4 steps", "num_steps is 3")),
        ("@2", ("--config.model.ch=8", "--config.model.sn_eps=1e-4"),
         (r"model.ch 4 -> 8 would change", "init_from=.*@2`")),
        ("@2", ("--config.model.g_attention=()",), (r"g_attention \(8,\) -> \(\) would",)),
        ("@2", ("--config.model.resolution=32",), ("model.resolution 16 -> 32 would",)),
        ("@2", ("--config.model.d_spectral_norm=False",), ("d_spectral_norm True -> False would",)),
        ("@2", ("--config.model.cond_order=z_embedding",), ("cond_order embedding_z -> z_emb",)),
        ("@2", ("--config.init_from=.",), ("init_from None -> .: restore",)),
        ("@2", ("--config.data.holdout=0.1",), ("data.holdout 0.0 -> 0.1: restore",)),
    ],
)  # fmt: skip
def test_what_cannot_be_forked(scored, tmp_path, capsys, place, more, words):
    new = tmp_path / "new"
    assert fork(new, f"--fork={scored}{place}", *more) == 2
    line = refused(capsys, f"^biggan: --fork={re.escape(f'{scored}{place}')}: ", *words)
    assert not (new / "fork.json").exists() and not steps(new)
    for advice in re.findall(r"`(--config.init_from=.*?)`", line):
        (argument,) = shlex.split(advice)
        found = argument.partition("=")[2]
        assert found in (f"{scored}@2", f"{scored}/best")


@pytest.mark.full
def test_an_origin_that_started_from_weights(run_copy, tmp_path):
    """They need not be there any more, and a fork cannot start from others."""
    tuned, more = tmp_path / "tuned", ("--config.num_steps=2", "--config.finetune.keep_optimizer")
    assert runs.train(tuned, f"--config.init_from={run_copy}", *more) == 0
    shutil.rmtree(run_copy)
    assert fork(tmp_path / "new", f"--fork={tuned}@2", "--config.num_steps=3") == 0
    assert runs.train(tuned, "--config.num_steps=3", more[1]) == 0
    runs.assert_same_state(tmp_path / "new", tuned, 3)


def test_a_workdir_that_is_taken(trained, run_copy, tmp_path, capsys):
    assert fork(run_copy, f"--fork={trained}@2") == 2
    refused(capsys, "holds a run that is no fork of", "--workdir")
    assert fork(run_copy, f"--fork={run_copy}@2") == 2
    refused(capsys, "no fork of", "--workdir")
    assert fork(tmp_path / "new", "--config.seed=3") == 2
    refused(capsys, "required: --config")


def test_a_model_setting_that_changes_no_shape(trained, tmp_path):
    new, more = tmp_path / "new", ("--config.model.d_dropout=0.5", "--config.num_steps=2")
    assert fork(new, f"--fork={trained}@2", *more) == 0
    changes = json.loads((new / "fork.json").read_text())["changes"]
    assert changes == {"model.d_dropout": [0.0, 0.5]}


def test_other_data(trained, tmp_path, capsys):
    new = tmp_path / "new"
    more = ("--config.data.source=digits:train", "--config.num_steps=2")
    assert fork(new, f"--fork={trained}@2", *more, "--config.data.holdout=0.1") == 0
    said = capsys.readouterr().err
    assert "data.source digits -> digits:train" in said
    assert re.search(r"\ndata: the fork goes on with other data .*digest \w{12}, now \w{12}", said)
    changes = json.loads((new / "fork.json").read_text())["changes"]
    assert list(changes) == ["data.holdout", "data.source"]
    assert fork(new) == 0  # from here on it is the data of the run


def kill(monkeypatch, at, workdir, *arguments):
    """`fork`, killed in front of a write of a file of this name, or of a call of Checkpoints."""

    def changed(change, name=None):
        def call(*args, **options):
            if name or getattr(args[0], "name", "") == at:
                raise killing.Killed
            return change(*args, **options)

        return call

    owner = checkpoint.Checkpoints
    with monkeypatch.context() as patch, pytest.raises(killing.Killed):
        if hasattr(owner, at):
            patch.setattr(owner, at, changed(getattr(owner, at), at))
        patch.setattr(paths, "write_bytes", changed(paths.write_bytes))
        fork(workdir, *arguments)


FLIPPED = ("--config.num_steps=2", "--config.data.flip=True")
FILES = ("fork.json", "config.json", "save")


def test_killed_while_it_forks(trained, tmp_path, monkeypatch):
    """What a kill leaves counts for nothing; the command works again, as does one without --fork
    once it is known what was to be forked."""
    for at in FILES if FULL else FILES[2:]:
        new = tmp_path / at
        kill(monkeypatch, at, new, f"--fork={trained}@2", *FLIPPED)
        assert not steps(new)
        known = (new / "fork.json").exists()
        assert known is (at in FILES[1:])
        assert fork(new, *(() if known else (f"--fork={trained}@2",)), *FLIPPED) == 0
        assert steps(new) == [2] and origin.read(new)["changes"] == {"data.flip": [False, True]}
        assert len((new / workdir_lib.HISTORY).read_text().splitlines()) == 1
    runs.assert_same_state(new, trained, 2)


@pytest.mark.full
def test_what_a_kill_left_is_not_the_next_forks(trained, tmp_path, monkeypatch):
    new = tmp_path / "new"
    kill(monkeypatch, "save", new, f"--fork={trained}@2", *FLIPPED)
    (new / "metrics.jsonl").write_text('{"step": 1}\n')
    assert fork(new, f"--fork={trained}@4") == 0
    assert origin.read(new) == {"from": str(trained), "step": 4, "changes": {}}
    assert steps(new) == [4] and not (new / workdir_lib.HISTORY).exists()
    assert not runs.metric_lines(new)


@pytest.mark.full
def test_a_checkpoint_that_goes_while_it_is_read(run_copy, tmp_path, monkeypatch, capsys):
    """The origin trains on, and keeps its newest checkpoints alone."""
    read = integrity.read

    def removed(path, *args, **options):
        shutil.rmtree(path)
        return read(path, *args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(integrity, "read", removed)
        assert fork(tmp_path / "new", f"--fork={run_copy}@2") == 2
    refused(capsys, "checkpoint 2 in .* has gone", "it has 4")
    assert not (tmp_path / "new").exists()


@pytest.mark.full
def test_a_damaged_checkpoint(run_copy, tmp_path, capsys):
    """DIR alone falls back to an older one, as a resume does; DIR@STEP means this one."""
    (run_copy / "checkpoints" / "4" / "meta" / "metadata").write_text("{")
    assert fork(tmp_path / "new", f"--fork={run_copy}@4") == 2
    refused(capsys, f"--fork={run_copy}@4: checkpoint 4 in .* is corrupt", "fork 2$")
    with open(run_copy / "metrics.jsonl", "a") as file:
        file.write('{"step": 5, "im')  # in the making
    assert fork(tmp_path / "new", f"--fork={run_copy}", "--config.num_steps=2") == 0
    said = capsys.readouterr().err
    assert "warning: checkpoint 4" in said and f"forked {run_copy} at step 2" in said
    assert len((tmp_path / "new" / "fork_metrics.jsonl").read_text().splitlines()) == 4
    (tmp_path / "new" / "fork.json").write_text('{"from"')
    assert fork(tmp_path / "new", f"--fork={run_copy}") == 2
    refused(capsys, "fork.json is damaged")
