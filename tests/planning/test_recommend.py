"""What `biggan init` chooses: from a survey of made data, at a speed that is given."""

import jax
import numpy as np
import pytest

from biggan_jax import config as config_lib
from biggan_jax import models
from biggan_jax.config import effect
from biggan_jax.data import holdout
from biggan_jax.data.survey import Survey
from biggan_jax.errors import UserError
from biggan_jax.planning import config_text, data_choices, machine, recommend
from tests import runs

SECONDS = 0.2


@pytest.fixture(autouse=True)
def speed(monkeypatch):
    """Two cores: images a second fall with the pixels and the square of the width."""

    def images(found, seconds):
        m = found.config.model
        return found.speed / 2e11 * seconds * 160 * (32 / m.resolution) ** 2 * (16 / m.ch) ** 2

    monkeypatch.setattr(recommend.Recommendation, "images", images)
    monkeypatch.setattr(recommend, "_speed", lambda: 2e11)
    monkeypatch.setattr(machine, "memory", lambda: None)


def surveyed(count=5000, classes=4, **changes) -> Survey:
    histogram = changes.pop("histogram", np.full(classes, count // classes))
    values = {
        "spec": "folder:/data/pets",
        "count": int(histogram.sum()),
        "class_names": tuple(f"class {i}" for i in range(len(histogram))),
        "histogram": histogram,
        "labels": np.repeat(np.arange(len(histogram)), histogram),
        "encoded": True,
        "resolution": None,
        "channels": None,
        "shorter": np.full(100, 300),
        "lost": np.zeros(100),
        "grey": 0.0,
        "transparent": 0.0,
        "mirrored": True,
        "unreadable": 0,
        "read_seconds": 1e-5,
    }
    return Survey(**values | changes)


def recommended(survey=None, **options):
    options.setdefault("measure", lambda config: (SECONDS, 10.0))
    found = recommend.recommend(survey or surveyed(), **options)
    config_lib.validate(found.config, jax.device_count())
    models.check(found.config.model)
    assert effect.without(found.config) == []
    assert all(found.reasons[key] for key in found.settings())
    return found


@pytest.mark.parametrize(
    ("changes", "options", "resolution"),
    [
        ({}, {}, 32),  # an hour on two cores
        ({}, {"minutes": 1000.0}, 64),
        ({}, {"minutes": 5000.0}, 128),
        ({}, {"minutes": 1.0}, 16),
        ({"shorter": np.full(9, 28)}, {}, 32),  # hardly enlarged
        ({"shorter": np.full(9, 20)}, {}, 16),
        ({"shorter": np.full(9, 5)}, {}, 16),
        ({"shorter": np.array([300] * 8 + [4] * 2)}, {"minutes": 1e6}, 256),
        ({"shorter": np.array([300] * 7 + [4] * 3)}, {"minutes": 1e6}, 16),
        ({"resolution": 64, "channels": 1}, {}, 64),
        ({}, {"resolution": 128, "minutes": 0.1}, 128),
    ],
)
def test_resolution(changes, options, resolution):
    found = recommended(surveyed(**changes), **options)
    m = found.config.model
    assert m.resolution == resolution
    assert (
        m.dim_z % 20 == 0 and m.dim_z == {16: 60, 32: 80, 64: 100, 128: 120, 256: 140}[resolution]
    )
    few = found.config.num_steps * found.images_per_step < recommend.NEEDED[resolution] / 2
    assert any("--minutes" in note for note in found.notes) == few


def test_smaller_networks_where_a_step_takes_longer_than_it_should():
    tried = []

    def measure(config):
        tried.append((config.model.resolution, config.model.ch))
        return 0.001 * config.model.resolution * config.model.ch, 10.0

    options = {"minutes": 1000.0, "measure": measure}
    assert recommended(**options).config.model.resolution == 64
    tried.clear()
    slow = {"measure": lambda config: (12 * measure(config)[0], 10.0)}
    seen = []
    found = recommended(**options | slow, examine=seen.append)
    assert tried == [(64, 16), (32, 32), (32, 16)] and len(seen) == 3
    assert found.config.model.resolution == 32
    assert (
        "at 64, 128 and 256 pixels this machine trains too slowly"
        in found.reasons["model.resolution"]
    )
    tried.clear()
    assert recommended(**options | slow, resolution=64).config.model.resolution == 64
    assert tried == [(64, 16)]


def test_resolutions_that_there_are_not():
    with pytest.raises(UserError, match="--resolution is 48, and networks are defined for 16, 32"):
        recommended(resolution=48)
    with pytest.raises(UserError, match="--resolution is 64, and .* records of 32 pixels: leave"):
        recommended(surveyed(resolution=32, channels=3), resolution=64)
    words = "holds records of 20 pixels, and networks are defined for 16, .* prepare them again"
    with pytest.raises(UserError, match=words):
        recommended(surveyed(resolution=20, channels=3))


def test_records_in_lanes_are_not_balanced():
    """`train` refuses it: a column of a batch reads its own lanes."""
    tail = {"histogram": np.array([30, 1])}
    assert recommended(surveyed(**tail)).config.data.balance == 0.5
    found = recommended(surveyed(**tail, num_lanes=4, resolution=16, channels=3))
    assert found.config.data.balance == 0 and found.config.data.fake_labels == "uniform"
    assert any("prepare the data without lanes" in note for note in found.notes)


def test_the_shortest_and_the_longest_run():
    found = recommended(surveyed(1, 1), minutes=0.01, resolution=16)
    assert (found.config.num_steps, found.config.batch_size) == (1, max(2, jax.device_count()))
    assert "no more than there are" not in found.reasons["batch_size"]
    assert any(note.endswith("more --minutes, the resolution is the least") for note in found.notes)
    assert any(note.startswith("1 image is too few") for note in found.notes)
    found = recommended(surveyed(12, 3), minutes=1e9, resolution=16)
    assert found.config.num_steps == recommend.MOST_STEPS < 2**31


def test_width_by_time_and_by_the_number_of_images():
    hours = {"minutes": 600.0, "resolution": 32}
    assert recommended(resolution=32).config.model.ch == 16
    assert recommended(surveyed(50_000), **hours).config.model.ch == 64
    assert recommended(surveyed(500), **hours).config.model.ch == 32
    assert recommended(surveyed(50_000), minutes=1e5, resolution=32).config.model.ch == 96


@pytest.mark.parametrize("count", [2, 12, 100, 8000, 100_000])
def test_sizes_of_sets(count):
    found = recommended(surveyed(histogram=np.array([count - 1, 1])))
    devices = jax.device_count()
    assert found.config.batch_size % devices == 0
    assert found.config.batch_size <= max(devices, count)
    assert ("data.holdout" in found.settings()) == (count >= 200)
    assert any("too few" in note for note in found.notes) == (count < 200)
    share = found.config.data.holdout
    assert share * count <= 2000 and (count < 200 or share * count >= 10)


def test_one_device_takes_the_largest_batch_of_a_small_set(monkeypatch):
    monkeypatch.setattr(jax, "device_count", lambda: 1)
    assert recommended(surveyed(12, 2)).config.batch_size == 8
    assert recommended(surveyed(2, 2)).config.batch_size == 2
    assert recommended(surveyed(5000)).config.batch_size == 32


def test_no_class_is_held_out_as_a_whole():
    """Whichever index the only image of the last class has, with three before it left out too."""
    for first in range(300, 340):
        found = recommended(surveyed(histogram=np.array([first, 1])))
        held_out = holdout.of_indices(first + 1, found.config.data.holdout)
        assert not held_out[first - 3 :].any()
    unknown = surveyed(histogram=np.array([300, 1]), labels=None)
    assert recommended(unknown).config.data.holdout == 0
    assert recommended(surveyed(histogram=np.array([300, 90]), labels=None)).config.data.holdout > 0


def test_one_class_is_unconditional_and_has_no_scores():
    found = recommended(surveyed(histogram=np.array([1000])))
    assert found.config.model.num_classes == 1
    assert not {"model.shared_dim", "eval_every_steps"} & set(found.settings())
    assert recommended(surveyed(1000)).config.eval_every_steps


def test_colours():
    assert recommended(surveyed(grey=1.0)).config.model.channels == 1
    mixed = recommended(surveyed(grey=0.5, encoded=False))
    assert mixed.config.model.channels == 3
    assert "50% of the pictures are grey" in mixed.notes[0]
    assert recommended(surveyed(resolution=16, channels=1)).config.model.channels == 1


def test_length_and_all_that_goes_by_it():
    found = recommended(minutes=60.0)
    c = found.config
    assert 0.85 * 3600 < c.num_steps * SECONDS < 3600
    assert c.num_steps % c.eval_every_steps == 0
    window = 1 / (1 - c.ema.decay)
    assert 0.01 * c.num_steps < window < 0.04 * c.num_steps
    assert 0 < c.ema.start_step < 0.06 * c.num_steps
    short = recommended(minutes=0.01).config
    assert (short.num_steps, short.ema.start_step, short.eval_every_steps) == (1, 0, None)
    assert short.checkpoint_every_steps == short.log_every_steps == 1


def test_remedies_for_unequal_classes_and_for_small_sets():
    tail = recommended(surveyed(histogram=np.array([1000, 2]))).settings()
    even = recommended(surveyed(100_000)).settings()
    for key in ("data.balance", "augment.policy", "regularizer.lecam"):
        assert key in tail and key not in even
    grey = recommended(surveyed(500, grey=1.0)).settings()
    assert grey["augment.ops"] == ("translation", "cutout")
    for minutes in (0.01, 1.0, 60.0):  # it starts within the run
        recommended(surveyed(100), minutes=minutes)


@pytest.mark.parametrize("seconds", [0.05, SECONDS, 5.0])
def test_remedies_go_by_the_measured_length_and_say_it(seconds):
    """Steps that are faster, or slower, than the machine's products of matrices promised."""
    found = recommended(surveyed(4000), measure=lambda config: (seconds, 10.0), resolution=32)
    times = found.config.num_steps * found.images_per_step / 4000
    reason = found.reasons.get("augment.policy")
    assert (reason is not None) == (times >= data_choices.EPOCHS), times
    assert reason is None or f"seen about {times:,.0f} times" in reason
    assert (found.config.regularizer.lecam > 0) == (reason is not None)


@pytest.mark.full
def test_memory_halves_the_batch(monkeypatch):
    large = recommended().config.batch_size
    monkeypatch.setattr(machine, "memory", lambda: 10_000)
    found = recommended()
    assert found.config.batch_size < large
    assert found.reasons["batch_size"] == "what the memory holds"


def test_the_file_gives_the_settings_and_the_commands_prepare_where_that_is_faster(tmp_path):
    for spec in ('folder:/data/it\'s "pets" \\ é\udcff', "digits"):
        survey = surveyed(spec=spec, read_seconds=0.1)
        found = recommended(survey)
        follow = config_text.commands(found, survey, tmp_path)
        text = config_text.render(found, survey, follow)
        assert max(len(line) for line in text.splitlines() if line[0:1] not in "#") < 100
        space = {}
        exec(text, space)
        assert config_lib.flatten(space["get_config"]()) == config_lib.flatten(found.config)
        words = [line.split()[1] for line in follow]
        assert words == ["prepare", "train", "report"]
        assert f"records:{tmp_path}/records" in follow[1]
    (tmp_path / "run").mkdir()
    follow = config_text.commands(found, surveyed(), tmp_path)
    assert [line.split()[1] for line in follow] == ["train", "report", "sample"]
    assert str(tmp_path / "run-2") in follow[0] and "records" not in "".join(follow)


def test_measured_takes_the_median_without_the_first(monkeypatch):
    seconds = iter([9.0, 3.0, 1.0, 2.0])
    monkeypatch.setattr(recommend.bench, "Stepper", lambda config: lambda: next(seconds))
    assert recommend.measured(None)[0] == 2.0  # after 5 seconds no further one


@pytest.mark.full
def test_measured_is_the_step_of_train():
    step, whole = recommend.measured(runs.tiny_config("--config.model.num_classes=10"))
    assert 0 < step < whole
