"""`biggan report --sweep` and `launch/sweep.py --report`: the runs of a folder as one page."""

import json
import re
import shutil
import types

import pytest

from biggan_jax import cli
from biggan_jax.sweep import best, page_data, spread
from tests import runs
from tests.evaluation import made_run
from tests.sweep import test_sweep

fake = test_sweep.fake


def write_fid(workdir, fid) -> None:
    made_run.jsonl(
        workdir / "metrics.jsonl",
        [*made_run.metrics(1, 8), {"step": 8, "eval/fid": fid, "eval/best_fid": fid}],
    )


def sweep(folder):
    """Three widths with two seeds each, one more run that has failed, and what is no run."""
    for ch, fids in ((4, (9.0, 8.0)), (8, (5.0, 5.5)), (12, (5.2, 5.6))):
        for seed, fid in enumerate(fids):
            width, place = f"model.ch={ch}", folder / f"model.ch={ch}" / f"seed_{seed}"
            own = (f"--config.{width}", f"--config.seed={seed}")
            write_fid(made_run.make(place, *own), fid)
    (folder / "notes").mkdir()
    lost = {"name": "model.ch=0", "state": "failed", "error": "biggan: model.ch <b>is 0</b>"}
    (folder / "results.json").write_text(json.dumps([lost]))
    return folder


def report(folder, capsys, *more) -> tuple[dict, str]:
    assert cli.main(["report", f"--sweep={folder}", "--json", *more]) == 0
    result = json.loads(capsys.readouterr().out)
    return result, open(result["out"], encoding="utf-8").read()


def test_a_sweep_on_one_page(tmp_path, capsys):
    folder = sweep(tmp_path / "out")
    result, text = report(folder, capsys)
    assert result["runs"] == 4 and result["score"] == "eval/fid"
    assert result["best"] == "model.ch=8" and result["out"] == str(folder / "report/index.html")
    assert (
        "5.25 ± 0.35; model.ch=12 has 5.40 ± 0.28: a difference of 0.15, smaller than both"
        in (result["verdict"])
    )
    assert result["verdict"] in text.replace("&#39;", "'")
    assert "biggan: model.ch &lt;b&gt;is 0&lt;/b&gt;" in text  # what failed, and why
    assert "left out, no runs: notes" in result["notes"]
    rows = re.findall(r'<td[^>]*data-head="run">([^<]*)<', text)
    assert rows[0] == "model.ch=8 (best)" and "model.ch=0" in rows
    assert 'data-head="model.ch">8<' in text and "2 seeds" not in text
    assert "<h3>Loss of D</h3>" in text and 'class="stack sortable"' in text
    assert len(text) < 5_000_000 and not re.search(r"(src|href)=.(https?:)?//|@import", text)
    other, _ = report(folder, capsys, f"--out={tmp_path / 'F.html'}")
    assert other["out"] == str(tmp_path / "F.html")
    # The seeds of one config by themselves.
    result, text = report(folder / "model.ch=8", capsys)
    assert result["best"] is None and "2 seeds of one config: FID 5.25 ± 0.35" in text


def test_samples_are_of_the_same_latents(trained, tmp_path, capsys):
    """A damaged run has none, and says so."""
    for name in "abc":
        shutil.copytree(trained, tmp_path / name)
    shutil.rmtree(tmp_path / "c" / "checkpoints")
    result, text = report(tmp_path, capsys)
    pictures = re.findall(r'src="data:image/png;base64,([^"]+)"', text)
    assert len(pictures) == 2 and pictures[0] == pictures[1]
    assert "the same latents and classes" in text
    assert any(line.startswith("no samples of c: ") for line in result["notes"])
    assert result["best"] is None and "none has been scored" in result["verdict"]


def entry(name, *fids, **config):
    metrics = [{"eval/fid": fid, "eval/is_mean": 1.0} for fid in fids if fid is not None]
    return types.SimpleNamespace(name=name, scores=spread.over(metrics), config=config)


@pytest.mark.parametrize(
    ("a", "b", "won", "words"),
    [
        ((1.0, 2.0), (1.2, 2.4), False, "smaller than both deviations, is no win"),
        ((1.0, 1.1), (1.0, 3.0), False, "smaller than one of the two deviations"),
        ((1.0, 1.1), (9.0, 9.1), True, "larger than both deviations"),
        ((1.0,), (9.0,), None, "--seeds K` measures it"),
        ((1.0, 1.1), (None,), None, "no other run has been scored"),
    ],
)
def test_a_difference_within_the_deviations_is_no_win(a, b, won, words):
    for runs_ in ([entry("a", *a), entry("b", *b)], [entry("b", *b), entry("a", *a)]):
        found = best.find(runs_)
        assert (found.name, found.is_win) == ("a", won) and words in found.sentence


def test_scores_of_different_protocols_name_no_best():
    entries = [entry(str(n), float(n), **{"eval_samples": n}) for n in (1, 2)]
    found = best.find(entries)
    assert found.name is None and "they differ in eval_samples" in found.sentence
    assert best.find([entry("a")]).score is None


@pytest.mark.full
def test_after_a_sweep_with_a_failure(fake, tmp_path, capsys):
    (tmp_path / "fake" / "1").write_text("3")
    assert test_sweep.call(*fake, "--report") == 1
    captured = capsys.readouterr()
    path = tmp_path / "out" / "report" / "index.html"
    assert str(path) in captured.out
    assert "biggan: this run ends early" in path.read_text()
    assert test_sweep.call(*fake, "--report", "--collect", "--json") == 0
    result = json.loads(capsys.readouterr().out)
    assert result["report"] == str(path) and result["best"] == "seed=0"
    assert test_sweep.call(*fake, "--report", "--print") == 2
    runs.assert_one_error(capsys.readouterr(), "--print starts no run")


def test_folders_without_runs(tmp_path, capsys):
    made_run.make(tmp_path / "run")
    (tmp_path / "empty").mkdir()
    (tmp_path / "foreign" / "thesis").mkdir(parents=True)
    (tmp_path / "file").write_text("")
    for name, word in (
        ("none", "does not exist"),
        ("file", "is a file"),
        ("empty", "holds no run: give a folder"),
        ("foreign", "holds no run, only thesis"),
        ("run", "use `biggan report --from"),
    ):
        before = sorted(tmp_path.rglob("*"))
        assert cli.main(["report", f"--sweep={tmp_path / name}"]) == 2
        runs.assert_one_error(capsys.readouterr(), word)
        assert before == sorted(tmp_path.rglob("*"))
    assert cli.main(["report"]) == 2
    runs.assert_one_error(capsys.readouterr(), "--from", "--sweep")
    assert cli.main(["report", "--sweep=a", "--from=b"]) == 2
    runs.assert_one_error(capsys.readouterr(), "not allowed with")


def test_what_damaged_results_leave(tmp_path, capsys):
    folder = sweep(tmp_path / "out")
    (folder / "results.json").write_text("{")
    (folder / "model.ch=4" / "seed_0" / "metrics.jsonl").write_text('{"step": 1}\n{"torn')
    result, _ = report(folder, capsys)
    assert result["runs"] == 3 and any("results.json cannot be read" in x for x in result["notes"])
    assert page_data.differing([]) == []
