"""The kinds of image sources: one entry each, read by every message, hint and help text.

A new kind is a module beside this one with

    def open_spec(spec, argument, *, resolution, channels, on_bad_record) -> Source

and a line in `KINDS`; what the line `takes` are further keywords. `argument` is what follows the
colon, '' where nothing does. The module is imported when a source of its kind is opened, not
before.
"""

from typing import NamedTuple


class Kind(NamedTuple):
    """One kind of image source.

    Attributes:
      name: what stands before the colon.
      form: how the whole is written; without a colon outside brackets the name alone will do.
      holds: what it is, in a few words.
      module: where its `open_spec` is, in `biggan_jax.data`.
      takes: settings of the data that its `open_spec` takes besides those of every kind.
    """

    name: str
    form: str
    holds: str
    module: str
    takes: tuple[str, ...] = ()

    @property
    def needs_argument(self) -> bool:
        """Whether the name alone does not say enough."""
        return self.form.startswith(f"{self.name}:")

    @property
    def holds_path(self) -> bool:
        """Whether its argument starts with a path of this machine."""
        argument = self.form.removeprefix(f"{self.name}:")
        return argument.startswith(("PATH", "FOLDER", "DIR", "FILE"))


_FOLDER = "image files, a sub-folder for each class"
_IMAGENET = "ILSVRC2012_img_train.tar as it is, or Kaggle's folder"
_SHARDS = (
    "tars of samples (KEY.jpg with KEY.cls or KEY.json): a folder, 'x-*.tar', 'x-{000..146}.tar'"
)
_PARQUET = "Hugging Face's files with an image and a label column"
_ZIP = "images in class folders, or with StyleGAN's dataset.json"
_TAR = "class folders, or one tar a class"
_TFDS = "a data set of TensorFlow Datasets"
_STAGED = ("stage", "stage_gb")
_RECORDS = "what `biggan prepare` wrote, local or in a bucket"
KINDS = {
    kind.name: kind
    for kind in (
        Kind("digits", "digits[:SPLIT]", "scikit-learn's handwritten digits", "digits"),
        Kind("tfds", "tfds:NAME[:SPLIT]", _TFDS, "tfds_source", _STAGED),
        Kind("folder", "folder:PATH[:SPLIT]", _FOLDER, "folder", ("class_order",)),
        Kind("images", "images:PATH[:SPLIT]", "image files without classes", "flat"),
        Kind("arrays", "arrays:FILE.npz", "uint8 `images` and `labels`", "array_file"),
        Kind("fashion_mnist", "fashion_mnist:FOLDER[:SPLIT]", "its four idx files", "idx"),
        Kind("imagenet", "imagenet:PATH[:SPLIT]", _IMAGENET, "imagenet"),
        Kind("webdataset", "webdataset:PATH", _SHARDS, "webdataset"),
        Kind("parquet", "parquet:PATH[:SPLIT[:COLUMN]]", _PARQUET, "parquet_source"),
        Kind("zip", "zip:FILE[:FOLDER]", _ZIP, "zip_source", ("class_order",)),
        Kind("tar", "tar:FILE[:FOLDER]", _TAR, "tar_source", ("class_order",)),
        Kind("records", "records:DIR", _RECORDS, "records", _STAGED),
    )
}


def forms() -> str:
    """How each kind is written, for a message: 'digits[:SPLIT], folder:PATH or records:DIR'."""
    *most, last = (kind.form for kind in KINDS.values())
    return f"{', '.join(most)} or {last}"


def described() -> str:
    """How each kind is written and what it is, for a help text."""
    return "; ".join(f"{kind.form}: {kind.holds}" for kind in KINDS.values())
