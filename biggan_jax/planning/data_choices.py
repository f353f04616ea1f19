"""Settings that follow from a data set and the length of a run, each with its reason."""

import jax
import numpy as np
from ml_collections import ConfigDict

from biggan_jax.config import default_config
from biggan_jax.data import findings, holdout
from biggan_jax.data.files import shown
from biggan_jax.data.survey import Survey
from biggan_jax.errors import counts
from biggan_jax.planning.recommendation import Recommendation

FEW = 200  # images below which none is given away to be held out
HELD_OUT = 500  # that are enough to tell by
SURE = 20  # images of a class of which one is never held out, for all that matters
SPARE = 3  # unreadable images that a sample has not shown
SHARES = (0.1, 0.05, 0.02, 0.01)  # of the images, that may be held out
# Times that a run sees every image, from which D knows them by heart: with 500 images of
# Fashion-MNIST it did after 50 (docs/stability.md).
EPOCHS = 25
BALANCE = 0.5  # half-way from the counts of the classes to equal shares
LECAM_IMAGES = 5_000  # below which it is on
LECAM = 0.3  # of Tseng et al. 2021
WINDOW = 0.03  # of the steps that the average reaches back over, as in the small configs
FIT_SECONDS = 150.0  # of the classifier, on 2 cores
FEATURES_PER_SECOND = 300.0  # of it, at 32 pixels on 2 cores


def channels(found: Recommendation, survey: Survey) -> None:
    """Chooses grey or colour; `found` is a `Recommendation`, here as below."""
    if survey.channels is not None:
        found.choose("model.channels", survey.channels, "that of the records")
    elif survey.grey == 1:
        found.choose("model.channels", 1, "all pictures looked at are grey")
    else:
        found.choose("model.channels", 3, "colour")
        if survey.grey >= 0.01 and not survey.encoded:  # of files `doctor` says it
            found.notes.append(
                f"{survey.grey:.0%} of the pictures are grey and the others have colours: some "
                "samples will be grey too"
            )


def choose(found: Recommendation, survey: Survey, images: float) -> None:
    """Chooses what depends on the data.

    Args:
      found: the settings so far.
      survey: what the data are like.
      images: that the run will see, about.
    """
    if survey.encoded:
        why = "a picture that cannot be read does not stop the run"
        found.choose("data.on_bad_record", "skip", why)
    if survey.mirrored:
        why = "pictures and their mirror images look alike on average; False for writing"
        found.choose("data.flip", True, why)
    _hold_out(found, survey)
    _balance(found, survey)
    remedies(found, survey, images)


def _hold_out(found: Recommendation, survey: Survey) -> None:
    if survey.count < FEW:
        found.notes.append(
            f"{counts(survey.count, 'image is', 'images are')} too few to hold some out: nothing "
            "will tell whether the samples are copies"
        )
        return
    wanted = [share for share in SHARES if share * survey.count >= HELD_OUT] or [SHARES[0]]
    for share in (share for share in SHARES if share <= min(wanted)):
        if _leaves_every_class(survey, share):
            why = "never trained on: they show whether D or G knows the others by heart"
            found.choose("data.holdout", share, why)
            return
    found.notes.append("no image is held out: a class would be left without any")


def _leaves_every_class(survey: Survey, share: float) -> bool:
    """Whether every class keeps an image, also where unreadable ones before it are left out."""
    if survey.labels is None:
        return int(survey.histogram[survey.histogram > 0].min()) >= SURE
    held_out = holdout.of_indices(survey.count, share)
    down = min(survey.unreadable + SPARE, survey.count)  # an index moves by so many at most
    may_be = np.convolve(held_out, np.ones(down + 1))[: survey.count] > 0.5
    kept = np.bincount(survey.labels[~may_be], minlength=survey.num_classes)
    return bool((kept[survey.histogram > 0] > 0).all())


def _balance(found: Recommendation, survey: Survey) -> None:
    present = survey.histogram[survey.histogram > 0]
    if present.max() < findings.IMBALANCE * present.min():
        return
    if survey.num_lanes:
        found.notes.append(
            "rare classes are seen as rarely in training: a column of a batch reads its own lanes, "
            "so that classes cannot be balanced; prepare the data without lanes for it"
        )
        return
    names = [shown(survey.class_names[i]) for i in (_most(survey), _least(survey))]
    why = f"{names[0]} has {present.max():,} images and {names[1]} {present.min():,}"
    found.choose("data.balance", BALANCE, f"{why}: rare classes are seen more often than they are")
    why = "fakes have the classes as often, or D would tell by the class"
    found.choose("data.fake_labels", "data", why)


def _most(survey: Survey) -> int:
    return int(survey.histogram.argmax())


def _least(survey: Survey) -> int:
    return int(np.where(survey.histogram > 0, survey.histogram, survey.count + 1).argmin())


def remedies(found: Recommendation, survey: Survey, images: float) -> None:
    """Chooses the remedies of small sets, or takes them back where they are not small.

    Before a step is measured, so that it has them, and again when the length of the run is known.

    Args:
      found: the settings so far.
      survey: what the data are like.
      images: that the run will see.
    """
    for key in ("augment.policy", "augment.ops", "regularizer.lecam"):
        found.leave(key)
    epochs = images / survey.count
    if epochs < EPOCHS:
        return
    often = f"each of the {survey.count:,} images will be seen about {epochs:,.0f} times"
    found.choose("augment.policy", "diffaugment", f"{often}: D would know them by heart")
    if found.config.model.channels == 1:
        why = "as in the config longtail; a grey picture is little but its brightness"
        found.choose("augment.ops", ("translation", "cutout"), why)
    if survey.count < LECAM_IMAGES:
        why = f"{survey.count:,} images are few: D's logits are held near their averages"
        found.choose("regularizer.lecam", LECAM, why)


def scoring_seconds(config: ConfigDict, survey: Survey) -> float | None:
    """Seconds that the scores of a run take on this machine, about; None where there are none."""
    if survey.num_classes < 2:
        return None  # no classifier can be fitted
    rate = FEATURES_PER_SECOND * (32 / config.model.resolution) ** 2
    seconds = FIT_SECONDS + (survey.count + SCORINGS * config.eval_samples) / rate
    return seconds if jax.default_backend() == "cpu" else seconds / 20


SCORINGS = 4  # of one run


def by_length(found: Recommendation, steps: int, *, scored: bool) -> None:
    """Chooses what depends on the number of steps.

    Args:
      found: the settings so far.
      steps: of the run.
      scored: whether there is time for scores.
    """
    window = int(np.clip(_nice(WINDOW * steps), 10, 10_000))
    why = f"an average over about {window:,} steps; a longer one lags behind a run of {steps:,}"
    found.choose("ema.decay", 1 - 1 / window, why)
    start = _nice(steps / 20) if steps >= 2_000 else 0
    found.choose("ema.start_step", start, "a twentieth of the run" if start else "a short run")
    if "regularizer.lecam" in found.reasons:
        start = min(_nice(steps / 10), default_config().regularizer.lecam_start_step)
        found.choose("regularizer.lecam_start_step", start, "a tenth of the run at most")
    every = {
        "log_every_steps": (200, "some 200 points of every curve"),
        "checkpoint_every_steps": (10, "what a crash loses at most is a tenth of the run"),
        "sample_every_steps": (20, "some 20 pictures of the samples"),
    }
    if found.config.data.holdout:
        every["monitor_every_steps"] = (50, "held-out images judged by D, and the spectra")
    for key, (parts, why) in every.items():
        found.choose(key, max(1, _nice(steps / parts)), why)
    if scored:
        each = steps // SCORINGS if steps % SCORINGS == 0 else steps
        why = "scored by a classifier of these data; the best state is kept in best/"
        found.choose("eval_every_steps", max(1, each), why)
        found.choose("eval_features", "classifier", "needs no download")


def _nice(count: float) -> int:
    """The largest of 1, 2, 5, 10, 20, 50, ... that is not above a number; 0 below 1."""
    if count < 1:
        return 0
    unit = 10 ** (len(str(int(count))) - 1)
    return max(lead * unit for lead in (1, 2, 5) if lead * unit <= count)
