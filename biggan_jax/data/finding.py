"""One thing about a data set or a config that may surprise whoever trains with it."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Finding:
    """One thing that may surprise, or stop a run.

    Attributes:
      what: a plain sentence.
      where: the folder, file, classes or setting.
      remedy: what to do about it.
      stops: whether nothing can be trained before it is mended.
    """

    what: str
    where: str
    remedy: str
    stops: bool = False

    def __str__(self) -> str:
        where = f" ({self.where})" if self.where else ""
        return f"{'error' if self.stops else 'note'}: {self.what}{where}: {self.remedy}"
