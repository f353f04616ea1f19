"""How the command at hand takes the settings that messages about data advise."""

from typing import NamedTuple


class Wording(NamedTuple):
    """How a user gives settings of the data, for messages that can be followed literally.

    Attributes:
      option: where the spec of the data was written.
      skip: what leaves out unreadable images.
      skip_does: what that does to an unreadable image.
      max_pixels: what lets larger images in, `{}` being their pixels; empty where nothing does.
      resolution: what asks for another size of the images, `{}` being that size.
      channels: the same of the number of channels.
      stage: what names the folder to which data in a bucket are copied, `{}` being that folder.
      batch_size: the setting of the images of one update, where the command trains.
    """

    option: str
    skip: str
    skip_does: str
    max_pixels: str
    resolution: str
    channels: str
    batch_size: str = "batch_size"
    stage: str = ""


_REPLACE = "replace it by the next one of its class"

TRAIN = Wording(
    "--config.data.source",
    "--config.data.on_bad_record=skip",
    _REPLACE,
    "--config.data.max_pixels={}",
    "--config.model.resolution={}",
    "--config.model.channels={}",
    "--config.batch_size",
    "--config.data.stage={}",
)
PREPARE = Wording(
    "--source",
    "--on-bad-record skip",
    "leave it out",
    "--max-pixels {}",
    "--resolution {}",
    "--channels {}",
)
# The model that is evaluated says how large its images are.
EVALUATE = Wording("--data", "--on-bad-record skip", _REPLACE, "", "", "")
EVALUATE_OWN = EVALUATE._replace(option="data.source")
SCORE = Wording("REAL", "--on-bad-record skip", _REPLACE, "", "--resolution {}", "--channels {}")
PYTHON = Wording(
    "open_source",
    "on_bad_record='skip'",
    _REPLACE,
    "max_pixels={}",
    "resolution={}",
    "channels={}",
    stage="stage='{}'",
)

_BY_OPTION = {each.option: each for each in (TRAIN, PREPARE, EVALUATE, EVALUATE_OWN, PYTHON)}
_BY_OPTION |= dict.fromkeys(("REAL", "FAKE"), SCORE)


def of(option: str) -> Wording:
    """The wording of the command that takes the spec of the data by this option.

    Args:
      option: such as `--data`; of another name it is taken for a Python caller's.

    Returns:
      The wording, with that option in it.
    """
    return _BY_OPTION.get(option, PYTHON)._replace(option=option)
