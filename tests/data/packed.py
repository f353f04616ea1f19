"""Small archives of the layouts that people have, for tests."""

import io
import json
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from biggan_jax.data import open_source
from biggan_jax.errors import UserError

WNIDS = ("n01440764", "n02012849", "n03126707")
MAPPING = (
    "n01440764 tench, Tinca tinca\nn02012849 crane\nn03126707 crane\nn07753592 banana\n"  # as it is
)
SIZE = {"resolution": 4, "channels": 3}


def opened(spec, **settings):
    """A source of 4 pixels in RGB, unless the settings say otherwise."""
    return open_source(spec, **SIZE | settings)


def refusal(spec, **settings) -> str:
    """The one line by which opening a source, or reading all of it, is refused."""
    with pytest.raises(UserError) as caught:
        source = opened(spec, **settings)
        source.read(range(len(source)))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def picture(value: int, kind: str = "PNG", size: int = 8) -> bytes:
    """The file of a grey square."""
    file = io.BytesIO()
    Image.new("RGB", (size, size), (value,) * 3).save(file, kind)
    return file.getvalue()


def tar(files: dict[str, bytes]) -> bytes:
    """A tar with these members; names that end in a slash are folders."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name.rstrip("/"))
            member.type = tarfile.DIRTYPE if name.endswith("/") else tarfile.REGTYPE
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return file.getvalue()


def zipped(path: Path, files: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> Path:
    """A zip file with these members."""
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def pets() -> dict[str, bytes]:
    """Two classes, 5 images: 0, 1, 2 in cat, 100, 101 in dog; and what people leave beside them."""
    cats = {f"cat/{i}.png": picture(i) for i in range(3)}
    dogs = {f"dog/more/{i}.png": picture(100 + i) for i in range(2)}
    return cats | dogs | {"cat/notes.txt": b"x", "cat/.DS_Store": b"x", "empty/": b""}


def imagenet() -> dict[str, bytes]:
    """Images by their names in ImageNet: two of each of three classes."""
    return {
        f"{wnid}/{wnid}_{j}.JPEG": picture(40 * i + 10 * j, "JPEG")
        for i, wnid in enumerate(WNIDS)
        for j in range(2)
    }


def tar_of_tars(files: dict[str, bytes]) -> bytes:
    """A tar of one tar for each folder."""
    folders = sorted({name.partition("/")[0] for name in files})
    inner = {
        f"{folder}.tar": tar({n.partition("/")[2]: c for n, c in files.items() if folder in n})
        for folder in folders
    }
    return tar(inner)


def unpacked(folder: Path, files: dict[str, bytes]) -> Path:
    """These files in a folder."""
    for name, content in files.items():
        path = folder / name
        if name.endswith("/"):
            path.mkdir(parents=True, exist_ok=True)
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder


def parquet(path: Path, columns: dict, names: list[str] | None = None, rows: int = 2) -> Path:
    """A parquet file with row groups of `rows`; `names` are those of Hugging Face's ClassLabel."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.table(columns)
    if names is not None:
        label = {"names": names, "_type": "ClassLabel"}
        features = {"image": {"_type": "Image"}, "label": label}
        table = table.replace_schema_metadata(
            {"huggingface": json.dumps({"info": {"features": features}})}
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, row_group_size=rows)
    return path


def rows(values: list[int]) -> list[dict]:
    """Cells of an image column, as `datasets` writes them."""
    return [{"bytes": picture(v), "path": f"{v}.png"} for v in values]


def values(source, indices=None) -> list[int]:
    """The grey value of images of a source."""
    images, _ = source.read(range(len(source)) if indices is None else indices)
    return np.round(images.mean((1, 2, 3))).astype(int).tolist()
