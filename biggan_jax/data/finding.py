"""One thing about a data set that may surprise whoever trains on it."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Finding:
    """One thing about the data that may surprise.

    Attributes:
      what: a plain sentence.
      where: the folder, file or classes.
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
