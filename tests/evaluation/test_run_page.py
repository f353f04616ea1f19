"""The page of a run: all of it inside, bounded, escaped, and written whatever is damaged."""

import json
import re

import numpy as np
import pytest
from PIL import Image

from biggan_jax.errors import UserError
from biggan_jax.evaluation import run_history, run_page, run_scores, run_sessions, run_verdict
from biggan_jax.pictures import curves, embedded, grids
from tests import mutations
from tests.evaluation import made_run
from tests.evaluation.made_run import Page

HOSTILE = "<script>alert('x')</script>\"><img src=x onerror=y>"


@pytest.fixture(scope="module", autouse=True)
def programs():
    """Nothing is compiled here."""


@pytest.fixture
def undrawn(monkeypatch):
    """Plots without curves, where a test looks at the rest of a page."""
    monkeypatch.setattr(curves, "svg", lambda *args, **kwargs: "<svg></svg>")


@pytest.fixture
def drawn(monkeypatch):
    """{name: (lines, options)} of the plots of a page."""
    found = {}

    def svg(name, lines, **options):
        found[name] = lines, options
        return "<svg></svg>"

    monkeypatch.setattr(curves, "svg", svg)
    return found


def page_of(workdir) -> tuple[Page, dict]:
    result = run_page.write(workdir)
    return Page((workdir / run_page.PLACE).read_text("utf-8")), result


def verdict(workdir) -> run_verdict.Verdict:
    return run_verdict.of(run_history.read(workdir))


def test_a_page_holds_all_of_a_run_and_loads_nothing(tmp_path):
    page, result = page_of(made_run.rolled_back(tmp_path / "run"))
    assert page.sections() == [
        *("samples", "losses", "scores", "spectra", "gains", "guard", "changes", "throughput"),
        *("others", "config", "data"),
    ]
    for title in ("Losses", "Logits of D", "Gradient norms", "Accuracy of D on real images",
                  "FID (lower is better)", "Throughput", "r1_penalty",
                  "sigma0 of the generator, before spectral normalisation"):  # fmt: skip
        assert title in page.plots()
    assert result["notes"] == [] and result["state"] == "finished" and result["step"] == 8
    assert "after 1 rollback, with 1 warning of the guard" in result["verdict"]
    assert result["verdict"] in page.text and "back to step 2" in page.text
    assert "0.0008" in page.text and "0.0004" in page.text  # what the rollback changed
    # Six of eight samples, the real images, what was abandoned; all with words for the blind.
    pictures = page.all("img")
    assert [p["alt"].partition(" at ")[0] for p in pictures[:6]] == [
        "Samples of the averaged weights"
    ] * 6
    assert "step 8" in pictures[5]["alt"] and len(pictures) == 8
    assert all(p["src"].startswith("data:image/") and p["alt"] for p in pictures)
    drawn = [a for a in page.all("div") if a.get("role") == "img"]
    assert len(drawn) == len(page.plots()) and all(a["aria-label"] for a in drawn)
    text = (tmp_path / "run" / run_page.PLACE).read_text()
    assert "http" not in text and "url(" in text
    for _, attrs in page.elements:
        for name in ("src", "href", "xlink:href", "data", "action", "poster"):
            assert (attrs.get(name) or "#").startswith(("#", "data:")), attrs
    assert not page.all("script") and 'url("' not in text.replace('url("#', "")
    ids = [attrs["id"] for _, attrs in page.elements if "id" in attrs]
    assert len(ids) == len(set(ids))


def test_the_same_run_gives_the_same_page(tmp_path):
    run = made_run.make(tmp_path / "run")
    out = [tmp_path / f"{i}.html" for i in range(2)]
    for path in out:
        run_page.write(run, path)
    assert out[0].read_bytes() == out[1].read_bytes()
    assert not (run / "report").exists()


def test_abandoned_curves_and_events_are_in_every_plot(tmp_path, drawn):
    page_of(made_run.rolled_back(tmp_path / "run"))
    assert len(drawn) > 9
    for lines, options in drawn.values():
        assert [m.step for m in options["marks"]] == [4, 6]  # the collapse is where it went back
        assert options["last"] == 8 and lines
    lines = drawn["losses"][0]
    pale = [line for line in lines if line.pale]
    assert len(pale) == 2 and len(lines) == 4 and all(x.dash == "dashed" for x in pale)
    assert list(pale[0].steps) == [3, 4, 5, 6] and pale[0].values[0] == pytest.approx(10.5)
    assert [x for x in lines if not x.pale][0].values[0] == 1.5


def test_a_fork_is_drawn_beside_the_run_it_comes_from(tmp_path, drawn):
    run = made_run.make(tmp_path / "run")
    made_run.jsonl(run / "metrics.jsonl", made_run.metrics(5, 9, scale=2.0))
    made_run.jsonl(run / "fork_metrics.jsonl", made_run.metrics(1, 7))
    changes = {"regularizer.r1": [0.0, 77.5]}
    (run / "fork.json").write_text(
        json.dumps({"from": "/x/runs/base", "step": 4, "changes": changes})
    )
    twice = {"step": 4, "changes": {"regularizer.r1": {"old": 0.0, "new": 77.5}}}
    made_run.jsonl(run / "config_history.jsonl", [twice])
    page, result = page_of(run)
    lines, options = drawn["losses"]
    assert [(m.step, m.color) for m in options["marks"]] == [(4, curves.GREY)]
    parent = [x for x in lines if x.pale]
    assert {x.color for x in parent} == {curves.GREY} and list(parent[0].steps) == [*range(1, 7)]
    assert "Forked from step 4 of /x/runs/base." in page.text and "regularizer.r1" in page.text
    assert result["notes"] == [] and page.text.count("77.5") == 1  # said once
    (run / "fork_metrics.jsonl").unlink()
    page, result = page_of(run)
    assert len(result["notes"]) == 1 and "fork_metrics.jsonl" in result["notes"][0]


def test_scores_of_a_follower_stand_in_a_table_a_protocol(tmp_path, undrawn):
    run = made_run.make(tmp_path / "run")
    lines = [
        {"step": step, "scores": {"fid": 10.25 + step}, "protocol": {"fingerprint": f"p{step % 2}"}}
        for step in (5, 4, 2)
    ]
    made_run.jsonl(run / "evaluations.jsonl", [*lines, {"step": 4}])
    page, result = page_of(run)
    assert "Scores of a follower, protocol p0" in page.text and "protocol p1" in page.text
    text = page.text.partition("protocol p0")[2].partition("protocol")[0]
    assert text.index("12.25") < text.index("14.25") and "15.25" not in text
    assert result["notes"] == ["evaluations.jsonl, line 4: it is no evaluation; it is left out"]


def test_what_others_have_written_stays_text(tmp_path):
    run = made_run.make(
        tmp_path / ("run" + HOSTILE.replace("/", "")), f"--config.class_names=('{'x' * 3}',)"
    )
    config = json.loads((run / "config.json").read_text())
    config["class_names"], config["data"]["source"] = [HOSTILE] * 10, HOSTILE
    config[HOSTILE] = HOSTILE
    (run / "config.json").write_text(json.dumps(config))
    lines = made_run.metrics(1, 9)
    for line in lines:
        line[HOSTILE] = line[f"eval/{HOSTILE}"] = line[f"monitor/g/raw_sigma0/{HOSTILE}"] = 1.0
        line["$\\frac{$"] = line["eval/$\\frac{$"] = 2.0  # no formula of matplotlib's
    made_run.jsonl(run / "metrics.jsonl", lines)
    event = made_run.EVENTS[0] | {"text": HOSTILE, "signal": HOSTILE, "action": HOSTILE}
    made_run.write_events(run, [event])
    made_run.jsonl(
        run / "config_history.jsonl", [{"step": 2, "changes": {HOSTILE: [HOSTILE, "\ud800"]}}]
    )
    run_sessions.begin(run, 0, HOSTILE, [HOSTILE])
    run_sessions.end(run, 8, "failed", HOSTILE)
    page, result = page_of(run)
    assert not page.all("script") and not [a for a in page.all("img") if "onerror" in a]
    assert HOSTILE in page.text and result["state"] == "failed"
    assert {"guard", "changes", "sessions", "scores", "others"} <= {*page.sections()}


@pytest.mark.full
def test_a_long_run_of_many_layers_stays_small(tmp_path):
    run = made_run.make(tmp_path / "run")
    random = np.random.default_rng(0)
    names = [
        f"monitor/{p}/{k}/block_{i}/conv"
        for p in "gd"
        for k in ("sigma0", "raw_sigma0")
        for i in range(100)
    ]
    with open(run / "metrics.jsonl", "w") as file:
        for step in range(1, 10_001):
            line = {"step": step, "images_seen": step, "d_loss": random.normal()}
            line |= dict.fromkeys(("g_loss", "d_real", "d_fake", "g_grad_norm"), random.normal())
            if step % 100 == 0:
                line |= dict(
                    zip(names, np.exp(random.normal(size=len(names))).tolist(), strict=True)
                )
            file.write(json.dumps(line) + "\n")
    made_run.jsonl(run / "guard.jsonl", [made_run.EVENTS[0] | {"step": i} for i in range(1, 2000)])
    large = random.integers(0, 256, (1500, 1500, 3), np.uint8)  # noise cannot be compressed
    data = grids.png(Image.fromarray(large))
    for path in (run / "samples").glob("*.png"):
        path.write_bytes(data)
    page, result = page_of(run)
    size = (run / run_page.PLACE).stat().st_size
    assert 1_000_000 < size < run_page.LARGEST and len(page.all("img")) == 7
    assert size - sum(len(img["src"]) for img in page.all("img")) < 900_000
    assert result["notes"] == []


# (file, line that is replaced, or None for one more, or the whole file; text; what is noted)
DAMAGES = [
    ("metrics.jsonl", None, '{"step": 9, "d_lo', "metrics.jsonl, line 18: the last line is torn"),
    ("metrics.jsonl", 2, "\x00\xff{}", "metrics.jsonl, line 2: it is no JSON"),
    ("metrics.jsonl", 3, '{"step": "x"}', "metrics.jsonl, line 3: it has no step"),
    ("metrics.jsonl", 1, '{"step": 1, "d_loss": "x"}', "line 1: d_loss is no number"),
    ("metrics.jsonl", 1, "[" * 5000, "metrics.jsonl, line 1: it is"),
    ("metrics.jsonl", 1, '{"a":' * 50 + "1" + "}" * 50, "line 1: it is nested too deeply"),
    ("metrics.jsonl", 1, f'{{"step": {10**30}}}', "line 1: it has no step"),
    ("guard.jsonl", 2, '{"step": 6, "state": "odd"}', "guard.jsonl, line 2: it is no event"),
    ("guard.jsonl", None, '{"st', "guard.jsonl, line 4: the last line is torn"),
    ("config_history.jsonl", None, "7\n", "config_history.jsonl, line 1: it is no JSON object"),
    (
        "config_history.jsonl",
        None,
        '{"step": 1}\n',
        "config_history.jsonl, line 1: it is no change",
    ),
    ("config.json", "all", '{"model": ', "config.json cannot be read: Expecting value"),
    ("config.json", "all", '{"a": 1, "a": 2}', "config.json cannot be read: it has 'a' twice"),
    ("fork.json", "all", "{}{", "fork.json cannot be read"),
    ("samples/step_00000008.png", "all", "\x89PNG", "samples/step_00000008.png cannot be shown"),
    ("samples/real.png", "all", "", "samples/real.png cannot be shown"),
    (run_sessions.FILE, "all", '{"event": "end", "step": 3}\n', "line 1: an end without its start"),
    ("abandoned/0/metrics.jsonl", 1, "}", "abandoned/0/metrics.jsonl, line 1: it is no JSON"),
]


@pytest.mark.parametrize(("file", "line", "text", "note"), DAMAGES)
def test_damage_is_a_note_and_the_page_is_written(tmp_path, undrawn, file, line, text, note):
    run = made_run.rolled_back(tmp_path / "run")
    path = run / file
    path.parent.mkdir(exist_ok=True)
    lines = path.read_text().splitlines(keepends=True) if isinstance(line, int) else []
    if line is None:
        append(path, text)
    elif line == "all":
        path.write_text(text)
    else:
        path.write_text("".join([*lines[: line - 1], text + "\n", *lines[line:]]))
    check_note(run, note)


def check_note(run, note):
    page, result = page_of(run)
    assert any(note in line for line in result["notes"]), result["notes"]
    assert len(result["notes"]) <= 2 and page.sections()[-1] == "notes" and note in page.text
    assert "guard" in page.sections()


def test_an_event_that_was_changed_is_a_note(tmp_path, undrawn):
    run = made_run.rolled_back(tmp_path / "run")
    path = run / "guard.jsonl"
    path.write_text(path.read_text().replace('"value": 0.1', '"value": 0.2', 1))
    check_note(run, "guard.jsonl, line 2: its check does not fit")
    made_run.jsonl(path, made_run.EVENTS)  # written by hand, without any
    assert page_of(run)[1]["notes"] == []


def test_a_folder_in_the_place_of_a_file_is_a_note(tmp_path, undrawn):
    run = made_run.rolled_back(tmp_path / "run")
    (run / "metrics.jsonl").unlink()
    (run / "metrics.jsonl").mkdir()
    check_note(run, "metrics.jsonl cannot be read")


def append(path, text):
    with open(path, "a") as file:
        file.write(text)


def test_thousands_of_damaged_lines_are_counted(tmp_path, undrawn):
    run = made_run.make(tmp_path / "run")
    append(run / "metrics.jsonl", "oops\n" * 3000)
    notes = page_of(run)[1]["notes"]
    assert len(notes) == 6 and "metrics.jsonl: 2,995 more" in notes[-1]


def test_runs_that_left_little(tmp_path, undrawn):
    """Killed before the first step, before the first save, or of a version without monitors."""
    run = made_run.make(tmp_path / "a")
    for path in (run / "samples").iterdir():
        path.unlink()
    (run / "samples").rmdir()
    made_run.jsonl(
        run / "metrics.jsonl", [{"step": 3, "images_seen": 48, "d_loss": 1.0, "g_loss": None}]
    )
    page, result = page_of(run)
    assert (result["state"], result["step"], result["notes"]) == ("unknown", 3, [])
    assert {"losses", "config"} <= {*page.sections()} and "no samples" in page.text
    (run / "metrics.jsonl").unlink()
    (run / run_page.PLACE).unlink()
    page, result = page_of(run)
    assert result["step"] == 0 and "Nothing is known" in result["verdict"]


def test_verdicts(tmp_path, monkeypatch):
    run = made_run.make(tmp_path / "run", last=5)
    assert verdict(run).sentence == "Came to step 5 of 8; why it went no further is not recorded."
    monkeypatch.setattr(run_history.lock, "is_held", lambda directory: True)
    assert verdict(run).state == "running" and "step 5 of 8" in verdict(run).sentence
    monkeypatch.setattr(run_history.lock, "is_held", lambda directory: False)
    run_sessions.begin(run, 0, "cpu", ["data"])
    assert (
        verdict(run).state == "killed" and "continues from the beginning" in verdict(run).sentence
    )
    (run / "checkpoints" / "4").mkdir(parents=True)
    assert "continues from step 4" in verdict(run).sentence
    run_sessions.end(run, 5, "stopped", "SIGTERM")
    assert verdict(run).sentence.startswith("Stopped by SIGTERM after step 5 of 8")
    run_sessions.begin(run, 5, "cpu", [])
    run_sessions.end(run, 5, "failed", "d_loss is nan at step 6")
    assert verdict(run) == run_verdict.Verdict(
        "failed", 5, "Failed after step 5 of 8: d_loss is nan at step 6."
    )
    # It has collapsed, went back, collapsed again and was stopped.
    end = {"step": 7, "state": "collapsed", "action": "stop", "text": "All samples are one."}
    made_run.write_events(run, made_run.EVENTS)
    assert verdict(run).state == "failed"
    made_run.write_events(run, [*made_run.EVENTS, end])
    found = verdict(run)
    assert found.state == "collapsed" and found.step == 5
    assert found.sentence.startswith(
        "Collapsed at step 7 of 8 after 1 rollback: All samples are one. "
    )
    # A kill tears the last line; the next session must not be lost with it.
    append(run / run_sessions.FILE, '{"event": "start", "st')
    run_sessions.begin(run, 5, "cpu", [])
    run_sessions.end(run, 8, "finished")
    assert [s.outcome for s in run_history.read(run).sessions] == ["stopped", "failed", "finished"]
    assert "finished all 8 steps" in verdict(run).sentence


def test_directories_without_a_history_are_refused(tmp_path):
    run = made_run.make(tmp_path / "sweep" / "lr=1")
    model = tmp_path / "sweep" / "lr=1" / "best"
    (model / "weights").mkdir(parents=True)
    (model / "config.json").write_text((run / "config.json").read_text())
    for path, words in (
        (tmp_path / "no", "no such directory"),
        (run / "config.json", "is a file"),
        (tmp_path / "sweep", "holds lr=1: give one of them"),
        (model, f"is a model directory.*made it, {run}"),
    ):
        with pytest.raises(UserError, match=words):
            run_page.write(path)
    (tmp_path / "other" / "samples").mkdir(parents=True)
    with pytest.raises(UserError, match="holds no config.json"):
        run_page.write(tmp_path / "other")
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "config.json").write_text("{")
    with pytest.raises(UserError, match="cannot be read"):  # nothing says that it is a run
        run_page.write(tmp_path / "empty")


def test_thinning_keeps_peaks_ends_and_gaps():
    steps = np.arange(10_000)
    values = np.sin(steps / 700.0)
    values[4321], values[7000:8000] = 50.0, np.nan
    at, kept = curves.thinned(steps, values, 50)
    assert len(at) <= 100 and at[0] == 0 and at[-1] == 9999 and (np.diff(at) > 0).all()
    assert 50.0 in kept and np.isnan(kept[(at > 7200) & (at < 7900)]).all()
    assert all(values[a] == k or np.isnan(k) for a, k in zip(at, kept, strict=True))
    few = np.arange(5), np.arange(5.0)
    assert curves.thinned(*few, 50) == few


def test_a_plot_keeps_the_numbers_at_its_ticks():
    line = curves.Line("a", np.arange(4), np.array([0.25, 0.5, 0.75, 1.0]), "#0072b2")
    text = curves.svg("a", [line], y="loss <&>", last=3)
    page = Page(text)
    assert "0.4" in page.text and "loss <&>" in page.text and page.elements[0][0] == "svg"
    narrow = curves.svg("a", [line], y="y", limits=(0.251, 0.252))
    assert "0.2514" in Page(narrow).text
    nothing = curves.Line("a", np.arange(2), np.array([np.nan, np.nan]), "#0072b2")
    assert Page(curves.svg("b", [nothing], y="y", log=True)).all("text")
    wild = curves.Line("a", np.arange(3), np.array([1e308, -1e308, 0.0]), "#0072b2")
    for log in (False, True):
        assert Page(curves.svg("c", [wild], y="y", log=log)).all("text")
    assert len({*curves.ramp(40)}) == 40 and curves.ramp(1) == ["#0072b2"]


@pytest.mark.parametrize("top", [1.0, 0.0303, 0.0300303, -0.030003])
def test_numbers_of_any_length_leave_the_label_of_the_axis_inside(top):
    line = curves.Line("a", np.arange(9), np.linspace(0.03, top, 9), "#0072b2")
    text = curves.svg("a", [line], y="coverage")
    # It is rotated: to its left are the letters' heights.
    (size, x) = re.search(r'font-size: (\d+)px[^>]* x="([\d.-]+)"[^>]*>coverage', text).groups()
    assert 0.9 * float(size) <= float(x) <= 2.5 * float(size)


def test_pictures_are_made_small_and_damage_is_told(tmp_path):
    random = np.random.default_rng(0)
    noise = Image.fromarray(random.integers(0, 256, (1300, 700, 3), np.uint8))
    uri, size = embedded.data_uri(grids.png(noise))
    assert uri.startswith("data:image/jpeg;base64,") and size == (517, 960)
    assert len(uri) < 1.34 * embedded.LIMIT + 50
    uri, size = embedded.data_uri(grids.png(Image.new("L", (30, 20))))
    assert uri.startswith("data:image/png;") and size == (30, 20)
    data = grids.png(noise)
    for damaged in (b"", b"text", data[: len(data) // 2], data[:40]):
        with pytest.raises(ValueError, match="no whole picture"):
            embedded.data_uri(damaged)


def test_a_config_that_is_not_the_one_of_the_weights_is_noted(run_copy):
    """The page shows its values, so it says which of them the run was not trained with."""
    path = run_copy / "config.json"
    assert not [note for note in run_history.read(run_copy).notes.lines() if "config.json" in note]
    path.write_bytes(path.read_bytes().replace(b'"ch": 4', b'"ch": 8'))
    (note,) = [note for note in run_history.read(run_copy).notes.lines() if "config.json" in note]
    assert note == "config.json has model.ch 8, not 4 as checkpoint 4 was saved with"


@pytest.mark.full
@pytest.mark.parametrize(
    ("name", "kind"),
    [("config.json", "config"), ("metrics.jsonl", "lines"), ("guard.jsonl", "lines"),
     ("report/sessions.jsonl", "lines"), ("abandoned/0/metrics.jsonl", "lines")],
)  # fmt: skip
def test_mutations_of_every_file_of_a_report(tmp_path, name, kind):
    """The page is written, and what cannot be read stands on it."""
    workdir = made_run.rolled_back(tmp_path / "run")
    made_run.jsonl(workdir / "report" / "sessions.jsonl", [{"event": "start", "step": 0}])
    data, said = (workdir / name).read_bytes(), 0
    for seed in range(mutations.COUNT // 10):
        (workdir / name).write_bytes(mutations.mutated(kind, data, seed))
        notes = run_page.write(workdir)["notes"]
        said += any(name in note for note in notes)
    assert said > mutations.COUNT // 40


def test_tables_of_classes_and_averages_survive_what_is_damaged(tmp_path):
    """What `biggan evaluate` left in report/, whole and with anything in its place."""
    run = run_history.History(tmp_path, labels=[7, 1])
    (tmp_path / "report").mkdir()
    whole = {
        "sweep_ema": [{"weights": "ema", "scores": {"fid": 3.0}}],
        "best_ema": "ema",
        "scores": {"fid": 3.0},
        "protocol": {"step": 5, "bn_mode": "running"},
        "per_class": [
            {"class": 0, "name": "cat", "accuracy": 0.9},
            {"class": 1, "name": "dog", "accuracy": 0.25, "intra_fid": 8.0},
        ],
    }
    path = tmp_path / "report" / "ema_sweep.json"
    assert run_scores.section(run).is_empty()
    path.write_text(json.dumps(whole))
    section = run_scores.section(run)
    (averages, classes) = section.tables
    assert "The best average is ema, of FID 3, at step 5 (running" in section.text[0]
    assert averages.rows == [("ema", "3")]
    assert classes.rows == [("dog", "1", "0.25", "8"), ("cat", "7", "0.9", "")]  # the worst first
    for key in whole:
        for wrong in (None, [], [1], {}, {"fid": "x"}, "x", [{"class": -1, "scores": []}]):
            path.write_text(json.dumps(whole | {key: wrong}))
            run_scores.section(run)
