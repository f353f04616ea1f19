"""WebDataset's shards and Hugging Face's parquet files."""

import json
import shutil
import sys

import numpy as np
import pytest

from biggan_jax.data import data_report, parquet_source
from biggan_jax.errors import UserError
from tests.data import packed
from tests.data.packed import opened, picture, refusal, values


def shard(path, samples):
    """A shard of {key: (value of the image, {ending: content})}."""
    files = {}
    for key, (value, more) in samples.items():
        files |= {f"{key}.jpg": picture(value, "JPEG")}
        files |= {f"{key}.{ending}": content for ending, content in more.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(packed.tar(files))
    return path


def labelled(y):
    return {"cls": str(y).encode(), "txt": b"a caption"}


def test_shards_are_read_in_their_order_with_their_labels(tmp_path):
    folder = tmp_path / "shards"
    shard(folder / "x-10.tar", {"0005": (50, labelled(2))})
    shard(folder / "x-9.tar", {"b/0001": (10, labelled(0)), "b/0002": (20, labelled(2))})
    for form in ("", "/*.tar", "/x-{9..10}.tar", "/x-{9,10}.tar"):
        source = opened(f"webdataset:{folder}{form}")
        order = values(source)
        assert sorted(order) == [10, 20, 50]
        if "*" not in form:
            assert order == [10, 20, 50] and source.labels_of(range(3)).tolist() == [0, 2, 2]
    assert source.class_names == ("0", "1", "2")
    assert values(source, [2, 0]) == [50, 10]
    (tmp_path / "classnames.txt").write_text("tench\ngoldfish\nshark\n")
    named = opened(f"webdataset:{folder}")
    assert named.class_names == ("tench", "goldfish", "shark")
    assert named.digest() == opened(f"webdataset:{folder}/x-{{9..10}}.tar").digest()
    shutil.copytree(folder, tmp_path / "copy")
    assert opened(f"webdataset:{tmp_path / 'copy'}").digest() == named.digest()
    (tmp_path / "classnames.txt").write_text("tench\ngoldfish\n")
    assert "classnames.txt names 2 classes" in refusal(f"webdataset:{folder}")


def test_labels_of_samples_may_be_json_and_names(tmp_path):
    numbers = {k: (i, {"json": json.dumps({"label": i}).encode()}) for i, k in enumerate("ab")}
    source = opened(f"webdataset:{shard(tmp_path / 'n.tar', numbers)}")
    assert source.labels_of([0, 1]).tolist() == [0, 1]
    names = {
        k: (i, {"cls": name}) for i, (k, name) in enumerate({"a": b"dog\n", "b": b"cat"}.items())
    }
    source = opened(f"webdataset:{shard(tmp_path / 's.tar', names)}")
    assert source.class_names == ("cat", "dog") and source.labels_of([0, 1]).tolist() == [1, 0]


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"txt": b"x"}, "sample k1 of .* has no label; write KEY.cls"),
        ({"cls": b""}, "k1.cls is empty"),
        ({"cls": b"-3"}, "has the label -3, outside 0"),
        ({"cls": b"cat"}, "of several kinds: 1 of sample k0.* 'cat' of sample k1"),
        ({"json": b"{"}, "k1.json is damaged"),
        ({"json": b'{"caption": 1}'}, "k1.json has no 'label'"),
        ({"cls": b"1", "png": b"x"}, "has 2 images"),
    ],
)
def test_a_sample_without_a_label_is_one_line(tmp_path, more, words):
    path = shard(tmp_path / "x.tar", {"k0": (0, labelled(1)), "k1": (1, more)})
    with pytest.raises(UserError, match=words) as caught:
        opened(f"webdataset:{path}")
    assert "\n" not in str(caught.value)


def test_missing_and_truncated_shards_are_named(tmp_path):
    path = shard(tmp_path / "x-0.tar", {"k0": (0, labelled(1)), "k1": (1, labelled(0))})
    assert "1 of the 2 files" in refusal(f"webdataset:{tmp_path}/x-{{0..1}}.tar")
    assert "no file matches" in refusal(f"webdataset:{tmp_path}/y-*.tar")
    (tmp_path / "none").mkdir()
    assert "holds no file that ends in .tar" in refusal(f"webdataset:{tmp_path / 'none'}")
    cut = tmp_path / "x-1.tar"
    cut.write_bytes(path.read_bytes()[:2048])
    assert f"{cut} is truncated" in refusal(f"webdataset:{tmp_path}/x-{{0..1}}.tar")


def table(values_, labels, **more):
    return {"image": packed.rows(values_), "label": labels} | more


def test_parquet_files_of_hugging_face(tmp_path):
    data = tmp_path / "set" / "data"
    names = ["tench", "crane", "banana"]
    packed.parquet(data / "train-00001-of-00002.parquet", table([30], [2]), names)
    packed.parquet(data / "train-00000-of-00002.parquet", table([0, 10, 20], [0, 1, 0]), names)
    packed.parquet(data / "test-00000-of-00001.parquet", table([99], [1]), names)
    source = opened(f"parquet:{tmp_path / 'set'}")  # train, as of tfds
    assert source.class_names == tuple(names)
    assert source.labels_of(range(4)).tolist() == [0, 1, 0, 2]
    assert values(source) == [0, 10, 20, 30] and values(source, [3, 0, 2]) == [30, 0, 20]
    assert values(opened(f"parquet:{tmp_path / 'set'}:test")) == [99]
    assert values(opened(f"parquet:{data}/train-*.parquet")) == [0, 10, 20, 30]
    assert source.digest() == opened(f"parquet:{data}:train").digest()
    assert source.digest() != opened(f"parquet:{data}:test").digest()
    assert "no split 'trian' (did you mean 'train'?)" in refusal(f"parquet:{data}:trian")
    # as its automatic conversion lays them out
    for split, value in (("train", 1), ("validation", 2)):
        packed.parquet(tmp_path / "auto" / split / "0000.parquet", table([value], [0]))
    assert values(opened(f"parquet:{tmp_path / 'auto'}")) == [1]
    assert values(opened(f"parquet:{tmp_path / 'auto'}:validation")) == [2]


def test_other_columns_of_parquet_files(tmp_path):
    plain = packed.parquet(
        tmp_path / "p.parquet",
        {"img": [picture(v) for v in (5, 6)], "coarse": ["b", "a"], "fine": [1, 0]},
    )
    source = opened(f"parquet:{plain}::fine")
    assert values(source) == [5, 6] and source.labels_of([0, 1]).tolist() == [1, 0]
    source = opened(f"parquet:{plain}::coarse")
    assert source.class_names == ("a", "b") and source.labels_of([0, 1]).tolist() == [1, 0]
    assert "no column of labels; its columns: img" in refusal(f"parquet:{plain}")
    for spec in (plain, f"{plain}::fin"):  # what they advise is the form of the first lines here
        assert "or parquet:FILE::COLUMN with the column" in refusal(f"parquet:{spec}")
    assert f"leave it out (parquet:{plain}::fine)" in refusal(f"parquet:{plain}:train:fine")
    assert "no column 'fin' (did you mean 'fine'?)" in refusal(f"parquet:{plain}::fin")


BAD_TABLES = {
    "no label": (
        lambda: {"image": packed.rows([1])},
        "has no column of labels; its columns: image",
    ),
    "no image": (lambda: {"text": ["x"], "label": [1]}, "has no column of images"),
    "two images": (
        lambda: {"a": [b"x"], "b": [b"x"], "label": [1]},
        "several columns of bytes",
    ),
    "null": (lambda: table([1, 2], [0, None]), "row 1 of .* has no label"),
    "lists": (lambda: table([1], [[1, 2]]), "a list, not a class"),
    "blank": (lambda: table([1, 2], ["cat", " "]), "row 1 of .* has an empty label; write"),
    "negative": (lambda: table([1, 2], [0, -1]), "row 1 of .* has the label -1, outside"),
    "path alone": (
        lambda: {"image": [{"bytes": None, "path": "x.png"}], "label": [0]},
        "no column of images|its cell is empty",
    ),
    "no rows": (lambda: table([1], [0]) and None, "holds no rows"),
}


@pytest.mark.parametrize(("columns", "words"), BAD_TABLES.values(), ids=BAD_TABLES)
def test_a_bad_table_is_one_line(tmp_path, columns, words):
    import pyarrow as pa

    path = tmp_path / "x.parquet"
    content = columns()
    if content is None:
        full = pa.table(table([1], [0]))
        content = {name: full[name][:0] for name in full.column_names}
    packed.parquet(path, content)
    with pytest.raises(UserError, match=words) as caught:
        source = opened(f"parquet:{path}")
        source.read(range(len(source)))
    assert "\n" not in str(caught.value)


def test_damaged_parquet_files_are_named(tmp_path):
    path = packed.parquet(tmp_path / "x.parquet", table([1, 2, 3], [0, 1, 0]))
    whole = path.read_bytes()
    path.write_bytes(whole[:-20])
    assert f"{path} is no parquet file, or damaged" in refusal(f"parquet:{path}")
    path.write_bytes(b"no table")
    assert f"{path} is no parquet file" in refusal(f"parquet:{path}")
    bad = packed.rows([1, 2])
    bad[0]["bytes"] = b"<html>"
    packed.parquet(path, {"image": bad, "label": [0, 0]})
    assert "row 0 of" in refusal(f"parquet:{path}") and values(
        opened(f"parquet:{path}", on_bad_record="skip")
    ) == [2, 2]


def test_without_pyarrow_one_line_names_the_extra(tmp_path, monkeypatch):
    path = packed.parquet(tmp_path / "x.parquet", table([1], [0]))
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    assert "pip install 'biggan_jax[parquet]'" in refusal(f"parquet:{path}")


def test_row_groups_are_read_once_and_few_are_kept(tmp_path, monkeypatch):
    content = [picture(v) for v in range(40)]
    path = packed.parquet(tmp_path / "x.parquet", {"image": content, "label": [0] * 40}, rows=4)
    source = opened(f"parquet:{path}")
    read = []
    real = parquet_source.RowGroups._read
    monkeypatch.setattr(
        parquet_source.RowGroups, "_read", lambda self, *at: read.append(at) or real(self, *at)
    )
    assert values(source) == list(range(40))
    assert sorted(read) == [(0, i) for i in range(10)]
    assert not data_report(source).findings[1:]
    monkeypatch.setattr(parquet_source, "KEPT_BYTES", 1)
    source = opened(f"parquet:{path}")
    order = np.random.default_rng(0).permutation(40)
    assert values(source, order) == order.tolist()
    assert len(source._column._kept) == 1
    (finding,) = source.remarks
    assert "row group" in finding.what and "biggan prepare" in finding.remedy
