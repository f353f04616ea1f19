"""What happens beside the steps of a run: in which order, once, and again after a kill."""

import json
import re
import shlex

import jax
import numpy as np
import optax
import pytest

from biggan_jax import cli
from biggan_jax.evaluation import evaluate
from biggan_jax.storage import best, checkpoint
from biggan_jax.training import hooks
from biggan_jax.training import workdir as workdir_lib
from tests import runs

SCORING = ("--config.eval_every_steps=2", "--config.checkpoint_every_steps=4")


def steps(workdir):
    return checkpoint.Checkpoints(workdir / "checkpoints").all_steps()


@pytest.fixture
def scored(monkeypatch):
    """Steps that were scored; scoring itself is a table of numbers."""
    seen = []

    def during_training(config, source, digest, workdir):
        def measure(variables, step):
            assert jax.tree.leaves(variables)
            seen.append(step)
            return {"scores": {"fid": {2: 7.0, 4: 9.0}[step]}, "protocol": {"samples": 70}}

        return measure

    monkeypatch.setattr(evaluate, "during_training", during_training)
    return seen


def test_every():
    hook = hooks.Every(3, print, last_step=10)
    assert [done for done in range(1, 13) if hook.is_due(done)] == [3, 6, 9, 10, 12]
    assert not any(hooks.Every(None, print).is_due(done) for done in range(1, 9))


@pytest.mark.full
def test_saved_before_it_is_scored(tmp_path, scored, monkeypatch):
    """A run that is stopped while it scores has lost nothing, and scores when it goes on."""
    workdir, straight = tmp_path / "run", tmp_path / "straight"
    assert runs.train(straight, *SCORING) == 0
    assert scored == [2, 4]

    def stopped(*args, **kwargs):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(hooks.best, "keep", stopped)
        assert runs.train(workdir, *SCORING) == 130
    assert steps(workdir) == [2] and best.read(workdir) is None
    scored.clear()
    assert runs.train(workdir, *SCORING) == 0
    assert scored == [2, 4]  # once each: the finished one of step 2 is not taken again
    assert runs.metric_lines(workdir) == runs.metric_lines(straight)
    runs.assert_same_state(workdir, straight, 4)
    assert best.read(workdir)["step"] == best.read(straight)["step"] == 2
    scored.clear()
    assert runs.train(workdir, *SCORING) == 0
    assert scored == []


@pytest.mark.full
def test_the_best_state_stays_when_a_run_goes_on_without_scores(tmp_path, scored):
    """The command without its `eval_every_steps`, over more checkpoints than are kept."""
    keep = ("--config.keep_checkpoints=1", "--config.checkpoint_every_steps=1")
    assert runs.train(tmp_path / "run", *SCORING, *keep, "--config.num_steps=2") == 0
    before = best.read(tmp_path / "run")
    assert before["step"] == 2
    assert runs.train(tmp_path / "run", *keep) == 0
    assert steps(tmp_path / "run") == [4] and scored == [2]
    assert best.read(tmp_path / "run") == before
    sample = ["sample", f"--from={tmp_path}/run/best", f"--out={tmp_path}/a.png", "--per-class=1"]
    assert cli.main(sample) == 0


def test_a_lost_picture_is_made_again(run_copy, trained):
    picture = "samples/step_00000004.png"
    (run_copy / picture).unlink()
    assert runs.train(run_copy) == 0
    assert (run_copy / picture).read_bytes() == (trained / picture).read_bytes()


def test_a_hook_of_a_stranger(tmp_path, monkeypatch):
    """It sees every due step, after its metrics and after the save of that step."""
    seen = []

    def watch(run):
        return hooks.Every(
            2, lambda done, state: seen.append((done, int(state.step), run.checkpoints.wait()))
        )

    build = hooks.build
    monkeypatch.setattr(hooks, "build", lambda run: (*build(run), watch(run)))
    assert runs.train(tmp_path / "run") == 0
    assert seen == [(2, 2, None), (4, 4, None)]


@pytest.mark.full
def test_other_rules_from_a_step_on(run_copy, capsys):
    """Refused without the flag, which is offered; with it, they are written down."""
    changed = ("--config.num_steps=5", "--config.optimizer.d_lr=1e-4", "--config.loss=wasserstein")
    changed += ("--config.optimizer.beta1=0.5", "--config.optimizer.clip_norm=0.01")
    changed += ("--config.regularizer.d_sigma_clamp=0.9",)
    assert runs.train(run_copy, *changed) == 2
    line = capsys.readouterr().err
    for word in ("loss hinge -> wasserstein", "optimizer.d_lr", "--allow-change"):
        assert word in line
    assert not (run_copy / workdir_lib.HISTORY).exists()
    assert runs.train(run_copy, *changed, "--allow-change") == 0
    told = capsys.readouterr().err
    assert "from step 4 on: loss hinge -> wasserstein" in told
    assert "beta1 0.0 -> 0.5 (Adam's first moments start at 0" in told
    state = runs.load_state(run_copy)[0]
    adam = state.generator.opt_state[0]
    assert adam.count == 5
    assert runs.metric_lines(run_copy)[-1]["g_grad_norm"] > 0.011  # before clipping
    assert optax.global_norm(adam.mu) == pytest.approx(0.5 * 0.01, rel=1e-4)
    kernel = np.asarray(state.discriminator.params["block_1"]["conv1"]["kernel"])
    assert np.linalg.norm(kernel.reshape(-1, kernel.shape[-1]), 2) == pytest.approx(0.9, rel=1e-5)
    # Half of the only gradient, whose square the second moments have taken 0.001 of.
    for mu, nu in zip(*map(jax.tree.leaves, (adam.mu, adam.nu)), strict=True):
        assert mu.any() and (0.001 * (2 * mu) ** 2 <= nu * 1.001).all()
    history = [json.loads(x) for x in (run_copy / workdir_lib.HISTORY).read_text().splitlines()]
    assert [h["step"] for h in history] == [4]
    assert history[0]["changes"]["loss"] == {"old": "hinge", "new": "wasserstein"}
    assert history[0]["changes"]["optimizer.d_lr"]["new"] == 1e-4
    assert json.loads((run_copy / "config.json").read_text())["loss"] == "wasserstein"
    # From now on these are the rules of the run: no flag, no second entry.
    assert runs.train(run_copy, *changed, "--config.num_steps=6") == 0
    assert len((run_copy / workdir_lib.HISTORY).read_text().splitlines()) == 1
    assert runs.load_state(run_copy)[0].generator.opt_state[0].mu
    assert runs.train(run_copy, *changed, "--allow-change", "--config.model.ch=8") == 2
    assert "model.ch" in capsys.readouterr().err


@pytest.mark.full
def test_another_seed_draws_otherwise(run_copy):
    """Latents too: the key of the run is part of its state."""
    before = runs.load_state(run_copy)[0].key
    more = ("--config.num_steps=5", "--config.seed=3", "--allow-change")
    assert runs.train(run_copy, *more) == 0
    state, step = runs.load_state(run_copy)
    assert step == 5
    fresh = jax.random.split(jax.random.key(3), 3)[2]
    assert (jax.random.key_data(state.key) == jax.random.key_data(fresh)).all()
    assert (jax.random.key_data(state.key) != jax.random.key_data(before)).any()


DIVERGING = (
    *("--config.loss=wasserstein", "--config.model.d_spectral_norm=False"),
    *("--config.model.g_spectral_norm=False", "--config.model.g_attention=()"),
    *("--config.optimizer.g_lr=5", "--config.optimizer.d_lr=5", "--config.num_steps=8"),
)


def advice(captured):
    """What the last line says in backticks, as arguments."""
    line = captured.err.splitlines()[-1]
    assert re.search(r"is -?(nan|inf) at step \d", line)
    return [shlex.split(words) for words in re.findall(r"`([^`]*)`", line)]


@pytest.mark.full
def test_the_advice_after_an_early_nan_works(tmp_path, capsys):
    """A run that diverges before anything is saved; the advice, appended to the same command."""
    command = (*DIVERGING, "--config.checkpoint_every_steps=100")
    workdir = tmp_path / "run"
    assert runs.train(workdir, *command) == 1
    lower, seed = advice(capsys.readouterr())
    assert seed == ["--config.seed=1"]
    assert runs.train(workdir, *command, *lower) == 0
    assert runs.load_state(workdir)[1] == 8


@pytest.mark.full
def test_the_advice_after_a_later_nan_works(tmp_path, capsys):
    """Every step is saved, so the last checkpoint has diverged: it goes on, or starts anew."""
    command = (*DIVERGING, "--config.checkpoint_every_steps=1", "--config.keep_checkpoints=1")
    workdir = tmp_path / "run"
    assert runs.train(workdir, *command) == 1
    on, seed, anew = advice(capsys.readouterr())
    assert on[0] == seed[0] == "--allow-change"
    (last,) = steps(workdir)
    assert runs.train(workdir, *command, *on) in (0, 1)  # not refused
    assert f"after step {last} of 8" in capsys.readouterr().err
    assert runs.train(workdir, *command, *anew) == 0
    assert runs.load_state(tmp_path / "run-2")[1] == 8
    assert steps(workdir)[-1] >= last
