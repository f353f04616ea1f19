"""What to choose for a data set and a machine: the settings, each with its reason.

Everything that is not measured follows the small configs that the package carries (`digits` at 16
pixels, `fashion_mnist` at 32, `folder` from 64 on), which were tried.
"""

import statistics
import time
from collections.abc import Callable

import jax
from ml_collections import ConfigDict

from biggan_jax.config import config_file, default_config, flatten
from biggan_jax.data.survey import Survey
from biggan_jax.errors import UserError, counts
from biggan_jax.models.widths import G_WIDTHS
from biggan_jax.parallel import sharding
from biggan_jax.planning import bench, data_choices, machine
from biggan_jax.planning.estimate import footprint
from biggan_jax.planning.recommendation import Recommendation
from biggan_jax.training import build

MINUTES = 60.0
# Real images that a run should see at a resolution: what `digits` and `fashion_mnist` see, then
# four times as many for every doubling.
NEEDED = {16: 38_400, 32: 112_000, 64: 448_000, 128: 1_792_000, 256: 7_168_000, 512: 28_672_000}
ENLARGED = 0.85  # of the resolution: a picture with this shorter side is hardly blurred by it
LARGE_ENOUGH = 0.75  # share of the pictures that shall have it
WIDTHS = (96, 64, 48, 32)  # tried in this order; the least is that of the tested small configs
LEAST_WIDTH = 16
WIDEST = {1_000: 32, 10_000: 64}  # with fewer images than this: a wider D knows them by heart
WIDER = 2  # times the images that are needed, before a wider network is worth it
SLACK = 1.5  # a compiled step is up to so many times as large as the estimate
WARM_UP_STEPS, TIMED_STEPS, TIMED_SECONDS = 1, 5, 5.0
MOST_STEPS = 2_000_000_000  # a step is counted in an int32
BESIDE = 0.05  # of the time: pictures, checkpoints, the guard
# What a config takes over from the one of its size.
_GAME = (
    *("num_d_steps", "optimizer.g_lr", "optimizer.d_lr", "regularizer.g_orthogonal"),
    *("model.dim_z", "model.shared_dim", "model.g_attention", "model.d_attention"),
)


def recommend(
    survey: Survey,
    *,
    minutes: float = MINUTES,
    resolution: int | None = None,
    examine: Callable[[Recommendation], None] | None = None,
    measure: Callable[[ConfigDict], tuple[float, float]] | None = None,
) -> Recommendation:
    """Chooses settings, and smaller networks where a step of the first ones takes too long.

    Args:
      survey: what the data are like.
      minutes: for which the run shall train, more than 0.
      resolution: in pixels, where the user has chosen it.
      examine: is called with the settings before a step of them is measured.
      measure: gives (seconds of a step, seconds that measuring it took) of a config; `measured` by
        default.

    Returns:
      The settings.

    Raises:
      UserError: a resolution that there is not.
    """
    speed = _speed()
    while True:
        found = _chosen(survey, minutes, resolution, speed)
        if examine is not None:
            examine(found)
        found.step_seconds, found.measuring_seconds = (measure or measured)(found.config)
        _length(found, survey, minutes)
        speed = found.measured_speed()
        other = _chosen(survey, minutes, resolution, speed).config.model
        own = found.config.model
        if (other.resolution, other.ch) >= (own.resolution, own.ch):
            return found


def _chosen(survey: Survey, minutes: float, resolution: int | None, speed: float) -> Recommendation:
    """All settings but those that go by the measured length of the run."""
    found = Recommendation(default_config(), speed=speed)
    found.choose("data.source", survey.spec, "the pictures")
    found.choose("model.num_classes", survey.num_classes, _classes(survey))
    data_choices.channels(found, survey)
    _size(found, survey, 60 * minutes, resolution)
    data_choices.choose(found, survey, found.images(60 * minutes))
    return found


def measured(config: ConfigDict) -> tuple[float, float]:
    """Times the very step that `train` would run, on synthetic images.

    Args:
      config: a full config.

    Returns:
      (seconds of a step, the median of up to 5; seconds that this took, compiling included).
    """
    start = time.perf_counter()
    stepper = bench.Stepper(config)
    for _ in range(WARM_UP_STEPS):
        stepper()
    seconds: list[float] = []
    while len(seconds) < TIMED_STEPS and sum(seconds) < TIMED_SECONDS:
        seconds.append(stepper())
    return statistics.median(seconds), time.perf_counter() - start


def _classes(survey: Survey) -> str:
    if survey.num_classes == 1:
        return "one class: an unconditional model"
    return "one for each class of the data"


def _size(found: Recommendation, survey: Survey, budget: float, asked: int | None) -> None:
    """Chooses resolution, width and batch by the pictures and by what the machine computes."""
    if asked is not None and survey.resolution not in (None, asked):
        raise UserError(
            f"--resolution is {asked}, and {survey.spec} holds records of {survey.resolution} "
            "pixels: leave --resolution out, or give --data the images that they were made from"
        )
    fixed = survey.resolution if asked is None else asked
    if fixed is not None and fixed not in G_WIDTHS:
        sizes = ", ".join(map(str, sorted(G_WIDTHS)))
        raise UserError(
            f"--resolution is {fixed}, and networks are defined for {sizes}: give one of them"
            if asked is not None
            else f"{survey.spec} holds records of {fixed} pixels, and networks are defined for "
            f"{sizes}: prepare them again with `biggan prepare` and one of these as its "
            "--resolution, or give --data the images that they were made from"
        )
    largest, why = _largest(survey)
    too_slow = []
    for size in [fixed] if fixed is not None else _descending(largest):
        _game(found, survey, size)
        seen = found.images(budget)
        if fixed is not None or seen >= NEEDED[size] or size == min(G_WIDTHS):
            break
        too_slow.insert(0, str(size))
    if too_slow:
        sizes = " and ".join(filter(None, [", ".join(too_slow[:-1]), too_slow[-1]]))
        why = f"at {sizes} pixels this machine trains too slowly for the time; {why}"
    if asked is not None:
        why = "as asked"
    elif fixed is not None:
        why = "that of the records"
    found.choose("model.resolution", size, why)
    _widen(found, survey, budget, seen)
    _fit(found)


def _largest(survey: Survey) -> tuple[int, str]:
    """The resolution at which few pictures are enlarged, and that reason."""
    for size in _descending(max(G_WIDTHS)):
        share = float((survey.shorter >= ENLARGED * size).mean())
        if share >= LARGE_ENOUGH:
            return size, f"{share:.0%} of the pictures are about as large, or larger"
    least = min(G_WIDTHS)
    return least, f"the least there is; only {share:.0%} of the pictures are as large"


def _descending(largest: int) -> list[int]:
    return [size for size in sorted(G_WIDTHS, reverse=True) if size <= largest]


def _game(found: Recommendation, survey: Survey, size: int) -> None:
    """Takes over what was tried at a resolution, with the least width."""
    found.choose("model.resolution", size, "")
    name = {16: "digits", 32: "fashion_mnist"}.get(size, "folder")
    tried = flatten(config_file.load(name, []))
    values = {key: tried[key] for key in _GAME}
    if size > 64:
        of_size = flatten(config_file.load(f"biggan{size}", []))
        values |= {key: of_size[key] for key in _GAME if key.startswith("model.")}
    if survey.num_classes == 1:
        del values["model.shared_dim"]  # there is no embedding
        found.config.model.shared_dim = default_config().model.shared_dim
    found.choose("model.ch", LEAST_WIDTH, "width of the small configs that were tried")
    found.config.num_d_steps = values["num_d_steps"]
    _batch(found, survey)
    for key, value in values.items():
        found.choose(key, value, f"as in the config {name}, which was tried")


def _batch(found: Recommendation, survey: Survey) -> None:
    """As the small configs, and no larger than the set; a multiple of the devices."""
    devices = jax.device_count()
    wanted = 32 if jax.default_backend() == "cpu" else max(64, 16 * devices)
    room = max(2, survey.count // found.config.num_d_steps)
    size = min(wanted, 1 << (room.bit_length() - 1))
    why = "as in the small configs" if size == wanted else "no more than there are images"
    if survey.count < room:
        why = "the least whose batch statistics are not those of one image"
    if devices > 1:
        size = max(devices * (size // devices), devices)
        why += f", a multiple of the {devices} devices"
    found.choose("batch_size", max(2, size), why)


def _speed() -> float:
    """FLOPs that all devices do in a second."""
    if jax.default_backend() == "cpu":  # several devices of a CPU share its cores
        return machine.flops_per_second()
    return machine.flops_per_second(4096) * jax.device_count()


def _widen(found: Recommendation, survey: Survey, budget: float, seen: float) -> None:
    """Takes the widest networks that the time and the number of images allow."""
    size = found.config.model.resolution
    if seen < WIDER * NEEDED[size]:
        return
    widest = min((width for few, width in WIDEST.items() if survey.count < few), default=WIDTHS[0])
    for width in (width for width in WIDTHS if width <= widest):
        before = found.config.model.ch
        found.config.model.ch = width
        if found.images(budget) >= WIDER * NEEDED[size]:
            why = f"the widest for which the time is enough, and {survey.count:,} images"
            found.choose("model.ch", width, why)
            return
        found.config.model.ch = before


def _fit(found: Recommendation) -> None:
    """Halves the batch until a step fits the memory."""
    have = machine.memory()
    if have is None:
        return
    mesh = sharding.make_mesh(found.config.mesh)
    needs = footprint(build.train_step(found.config, mesh))
    size = found.config.batch_size
    while SLACK * needs.on_device(found.config, mesh) > have and size % (2 * mesh.size) == 0:
        if size // 2 < 2:
            return
        size //= 2
        found.choose("batch_size", size, "what the memory holds")


def _length(found: Recommendation, survey: Survey, minutes: float) -> None:
    """Chooses the number of steps, and all that goes by it."""
    scoring = data_choices.scoring_seconds(found.config, survey)
    beside = BESIDE * 60 * minutes + found.measuring_seconds
    scored = scoring is not None and scoring < 0.1 * 60 * minutes
    room = max(0.0, 60 * minutes - beside - (scoring if scored else 0))
    steps = min(max(1, rounded(room / found.step_seconds)), MOST_STEPS)
    seen = steps * found.images_per_step
    pace = f"{found.step_seconds:.3g} s a step, measured"
    pace += "; no run has more steps" if steps == MOST_STEPS else ""
    found.choose("num_steps", steps, f"{minutes:g} minutes at {pace}: {seen:,} images seen")
    size = found.config.model.resolution
    needed = NEEDED[size]
    if seen < needed / 2:
        lower = "or a lower --resolution" if size > min(G_WIDTHS) else "the resolution is the least"
        found.notes.append(
            f"in {minutes:g} minutes the run sees {counts(seen, 'image', 'images')}; at {size} "
            f"pixels good samples took about {needed:,}: give more --minutes, {lower}"
        )
    data_choices.remedies(found, survey, seen)
    data_choices.by_length(found, steps, scored=scored)


def rounded(count: float) -> int:
    """A number cut to its two leading digits."""
    whole = int(count)
    unit = 10 ** max(0, len(str(whole)) - 2)
    return whole // unit * unit
