"""Images in zip files, tars, WebDataset's shards and parquet files, read where they lie."""

import json
import os
import stat
import tarfile
import threading
import zipfile

import numpy as np
import pytest

from biggan_jax.data import Batches, data_report, index_cache, stored, tar_source
from biggan_jax.data.patterns import expanded
from biggan_jax.errors import UserError
from tests.data import packed
from tests.data.packed import opened, picture, refusal, values


@pytest.fixture
def pets(tmp_path):
    """The same five images as a folder, zip files and tars: spec -> how it is opened."""
    files = packed.pets()
    packed.unpacked(tmp_path / "pets", files)
    packed.zipped(tmp_path / "a.zip", files)
    packed.zipped(tmp_path / "b.zip", files, zipfile.ZIP_DEFLATED)
    packed.zipped(tmp_path / "c.zip", {f"top/pets/{name}": c for name, c in files.items()})
    (tmp_path / "a.tar").write_bytes(packed.tar(files))
    (tmp_path / "b.tar").write_bytes(packed.tar({f"./pets/{n}": c for n, c in files.items()}))
    whole = {name: content for name, content in files.items() if name.endswith("png")}
    (tmp_path / "c.tar").write_bytes(packed.tar_of_tars(whole))
    kinds = {"a.zip": "zip", "b.zip": "zip", "c.zip": "zip", "a.tar": "tar", "b.tar": "tar"}
    specs = [f"{kind}:{tmp_path / name}" for name, kind in kinds.items()]
    return f"folder:{tmp_path / 'pets'}", specs, f"tar:{tmp_path / 'c.tar'}"


def test_an_archive_of_a_folder_is_the_same_data_as_the_folder(pets):
    folder, archives, of_tars = pets
    wanted = opened(folder)
    for spec in [*archives, of_tars]:
        source = opened(spec)
        assert source.class_names == wanted.class_names == ("cat", "dog")
        assert source.labels_of(range(5)).tolist() == [0, 0, 0, 1, 1]
        assert values(source) == values(wanted) == [0, 1, 2, 100, 101]
        assert values(source, [4, 0, 4]) == [101, 0, 101]
        assert source.digest() == wanted.digest(), spec
        assert source.stamp() != wanted.stamp()
        assert source.histogram().tolist() == [3, 2]
    for spec in archives:
        report = data_report(opened(spec))
        assert report.ignored_files == 2 and report.empty_classes == ("empty",)
        assert any("1 .DS_Store" in line for line in report.lines())


def test_links_in_a_tar_are_the_files_that_they_stand_for(tmp_path):
    """Tar writes a file that has two names once; a folder with links is read with them."""
    folder = packed.unpacked(tmp_path / "pets", packed.pets())
    os.link(folder / "cat" / "0.png", folder / "cat" / "9.png")
    (folder / "dog" / "s.png").symlink_to("more/0.png")
    (folder / "dog" / "lost.png").symlink_to("../nowhere.png")
    with tarfile.open(tmp_path / "pets.tar", "w") as archive:
        archive.add(folder, "pets")
    (folder / "dog" / "lost.png").unlink()
    plain, tarred = (opened(spec) for spec in (f"folder:{folder}", f"tar:{folder}.tar"))
    assert values(tarred) == values(plain) and len(plain) == 7
    assert tarred.digest() == plain.digest()


def test_links_in_a_zip_are_the_files_that_they_stand_for(tmp_path):
    """`zip -y` stores a symbolic link as one, with the path that it leads to as content."""
    folder = packed.unpacked(tmp_path / "pets", packed.pets())
    links = {"cat/9.png": "0.png", "dog/s.png": "../cat/1.png"}
    lost = {"dog/lost.png": "../nowhere.png", "dog/all.png": "../cat", "dog/up.png": "/etc/hosts"}
    packed.zipped(tmp_path / "a.zip", packed.pets())
    with zipfile.ZipFile(tmp_path / "a.zip", "a") as archive:
        for name, to in (links | lost).items():
            info = zipfile.ZipInfo(name)
            info.create_system, info.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
            archive.writestr(info, to)
    for name, to in links.items():
        (folder / name).symlink_to(to)
    plain, zipped = (opened(s) for s in (f"folder:{folder}", f"zip:{tmp_path / 'a.zip'}"))
    assert values(zipped) == values(plain) and len(plain) == 7
    assert zipped.digest() == plain.digest()


def test_absolute_names_in_an_archive(tmp_path):
    """As `tar -P` writes them: they end, and are those of the folder below."""
    files = {f"/data/{name}": content for name, content in packed.pets().items()}
    zipped = packed.zipped(tmp_path / "pets.zip", files)
    (tmp_path / "pets.tar").write_bytes(packed.tar(files))
    for spec in (f"zip:{zipped}", f"tar:{tmp_path / 'pets.tar'}"):
        assert opened(spec).class_names == ("cat", "dog")
        assert opened(f"{spec}:data").class_names == ("cat", "dog")
    only = packed.zipped(tmp_path / "one.zip", {"/cat/0.png": packed.picture(0)})
    assert opened(f"zip:{only}").class_names == ("cat",)


def test_the_stream_over_an_archive_is_that_over_the_folder(pets):
    folder, archives, _ = pets
    streams = [
        Batches(opened(spec), seed=3, batch_size=4, num_d_steps=2, balance=0.5)
        for spec in (folder, archives[1])
    ]
    for one, other in zip(*streams, strict=False):
        assert np.array_equal(one["image"], other["image"])
        assert np.array_equal(one["label"], other["label"])
        break
    for stream in streams:
        stream.close()


def test_a_folder_in_an_archive_is_chosen_as_in_a_folder(tmp_path):
    files = {f"set/{split}/{n}": c for split in ("train", "val") for n, c in packed.pets().items()}
    packed.zipped(tmp_path / "s.zip", files)
    (tmp_path / "s.tar").write_bytes(packed.tar(files))
    for kind in ("zip", "tar"):
        spec = f"{kind}:{tmp_path / f's.{kind}'}"
        findings = data_report(opened(spec)).findings
        assert f"give --config.data.source={spec}:set/train" in findings[0].remedy
        for split in ("train", "set/val", "set/val/"):
            assert opened(f"{spec}:{split}").class_names == ("cat", "dog")
        message = refusal(f"{spec}:trian")
        assert "did you mean 'train'" in message and f"{spec}:FOLDER" in message


def test_an_image_of_an_archive_that_cannot_be_read(tmp_path):
    good = picture(9)
    files = {"cat/a.png": b"no image", "cat/b.png": good, "cat/c.png": good[:45], "dog/a.png": good}
    packed.zipped(tmp_path / "p.zip", files)
    (tmp_path / "p.tar").write_bytes(packed.tar(files))
    for kind in ("zip", "tar"):
        spec = f"{kind}:{tmp_path / f'p.{kind}'}"
        assert f"p.{kind}/cat/a.png is no readable image (a text" in refusal(spec)
        source = opened(spec, on_bad_record="skip")
        assert values(source) == [9, 9, 9, 9] and source.bad_records == 2


def test_damage_inside_a_zip_file_is_found_by_its_sums(tmp_path):
    """A changed byte of a JPEG decodes to other pixels without a word."""
    content = picture(77, "JPEG", 64)
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        path = packed.zipped(tmp_path / f"{method}.zip", {"a/x.jpg": content}, method)
        data = bytearray(path.read_bytes())
        data[30 + len("a/x.jpg") + 200] ^= 0x10
        path.write_bytes(data)
        assert "in the zip file" in refusal(f"zip:{path}")


BAD_ARCHIVES = {
    "no zip": ("zip", lambda: b"no archive at all" * 99, "is no zip file, or truncated"),
    "no tar": ("tar", lambda: b"no archive at all" * 99, "is no tar file"),
    "nothing": ("tar", lambda: b"", "is no tar file .empty file"),
    "empty tar": ("tar", lambda: packed.tar({}), "is an empty tar"),
    "no images": ("tar", lambda: packed.tar({"a/x.txt": b"x"}), "no folder with images.*[.]txt 1"),
    "loose": ("tar", lambda: packed.tar({"x.png": picture(1)}), "1 image lies directly in it"),
    "gzip": ("tar", lambda: b"\x1f\x8b" + bytes(99), "is compressed.*gunzip"),
    "in the middle": ("tar", lambda: packed.tar(packed.pets())[:2000], "truncated or damaged"),
    "at a header": ("tar", lambda: packed.tar(packed.pets())[:1024], "truncated.*at byte 1,024"),
    "inner": ("tar", lambda: packed.tar({"cat.tar": b"x" * 2000}), "cat.tar in .* is no tar file"),
    "inner cut": (
        "tar",
        lambda: packed.tar({"cat.tar": packed.tar({"1.png": picture(1)})[:1024]}),
        "cat.tar in .* is truncated",
    ),
}


@pytest.mark.parametrize(("kind", "content", "words"), BAD_ARCHIVES.values(), ids=BAD_ARCHIVES)
def test_a_bad_archive_is_one_line(tmp_path, kind, content, words):
    path = tmp_path / f"x.{kind}"
    path.write_bytes(content())
    with pytest.raises(UserError, match=words) as caught:
        opened(f"{kind}:{path}")
    assert "\n" not in str(caught.value)


def test_bad_zip_files_are_one_line(tmp_path):
    empty = packed.zipped(tmp_path / "empty.zip", {})
    assert "is an empty zip file" in refusal(f"zip:{empty}")
    cut = packed.zipped(tmp_path / "cut.zip", packed.pets())
    cut.write_bytes(cut.read_bytes()[:-30])
    assert "truncated" in refusal(f"zip:{cut}")
    packed_by = packed.zipped(tmp_path / "lzma.zip", packed.pets(), zipfile.ZIP_LZMA)
    assert "is packed by lzma" in refusal(f"zip:{packed_by}")
    secret = bytearray(packed.zipped(tmp_path / "secret.zip", {"a/1.png": picture(1)}).read_bytes())
    secret[secret.index(b"PK\x01\x02") + 8] |= 1  # the flag in the directory at the end
    (tmp_path / "secret.zip").write_bytes(secret)
    assert "is encrypted" in refusal(f"zip:{tmp_path / 'secret.zip'}")
    assert "is a folder; write folder:" in refusal(f"zip:{tmp_path}")
    assert "no file" in refusal(f"zip:{tmp_path / 'none.zip'}")
    assert "is no local file" in refusal("tar:gs://bucket/x.tar")


# What StyleGAN's tools write: folders 00000, 00001, ... that are no classes.
IMAGES = {f"0000{i // 2}/img{i}.png": picture(10 * i) for i in range(4)}


def with_labels(path, labels, images=IMAGES):
    return packed.zipped(path, images | {"dataset.json": json.dumps({"labels": labels}).encode()})


def test_stylegans_zip_file_has_its_labels_from_dataset_json(tmp_path):
    names = list(IMAGES)
    labels = [[name, y] for name, y in zip(names[::-1], [2, 0, 0, 1], strict=True)]
    source = opened(f"zip:{with_labels(tmp_path / 's.zip', labels)}")
    assert source.class_names == ("0", "1", "2")
    assert source.read(range(4))[1].tolist() == [1, 0, 0, 2]
    assert values(source) == [0, 10, 20, 30]
    other = opened(f"zip:{with_labels(tmp_path / 't.zip', [[name, 0] for name in names])}")
    assert source.digest() != other.digest()  # the labels are part of the data
    named = [[name, "cat" if i % 2 else "dog"] for i, name in enumerate(names)]
    source = opened(f"zip:{with_labels(tmp_path / 'n.zip', named)}")
    assert source.class_names == ("cat", "dog")
    assert source.labels_of(range(4)).tolist() == [1, 0, 1, 0]
    without = opened(f"zip:{with_labels(tmp_path / 'u.zip', None)}")
    assert without.num_classes == 1 and len(without) == 4


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        ([[name, 1] for name in [*IMAGES][:1]], "3 images have no label in dataset.json, of 4"),
        ([[name, 1] for name in [*IMAGES, "x.png"]], "1 label is of images that are not in it .x."),
        ([[n, y] for n, y in zip(IMAGES, [1, "a", 1, 1], strict=True)], "of several kinds: 1 of"),
        ([[n, y] for n, y in zip(IMAGES, [1, [0, 1], 1, 1], strict=True)], "of several kinds"),
        ([[n, True if "0" in n else 1] for n in IMAGES], "has the label True"),
        ([[n, [0.5, 1]] for n in IMAGES], "a list, not a class"),
        ([[n, 0.5] for n in IMAGES], "has the label 0.5"),
        ([[n, -1] for n in IMAGES], "has the label -1, outside 0"),
        ([[n, 10**12] for n in IMAGES], "has the label 1000000000000, outside"),
        ({"a": 1}, "holds no labels"),
    ],
)
def test_labels_that_do_not_fit_are_one_line(tmp_path, labels, words):
    with pytest.raises(UserError, match=words) as caught:
        opened(f"zip:{with_labels(tmp_path / 's.zip', labels)}")
    assert "\n" not in str(caught.value)


def test_an_index_that_took_long_is_kept_until_the_file_changes(tmp_path, monkeypatch):
    monkeypatch.setenv("BIGGAN_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "p.tar"
    path.write_bytes(packed.tar(packed.pets()))
    opened(f"tar:{path}")
    assert not (tmp_path / "cache").exists()  # it took no second
    monkeypatch.setattr(index_cache, "KEPT_SECONDS", -1)
    before = opened(f"tar:{path}")
    (kept,) = (tmp_path / "cache" / "indexes").iterdir()

    def scan(path):
        raise AssertionError("scanned again")

    with monkeypatch.context() as patch:
        patch.setattr(tar_source.tar_index, "scan", scan)
        again = opened(f"tar:{path}")
        assert values(again) == values(before) and again.digest() == before.digest()
        path.write_bytes(packed.tar({"cat/x.png": picture(5)}))
        with pytest.raises(AssertionError, match="scanned again"):
            opened(f"tar:{path}")
    kept.write_bytes(kept.read_bytes()[:50])
    assert values(opened(f"tar:{path}")) == [5]
    monkeypatch.setattr(index_cache, "KEPT_FILES", 1)
    for number in range(3):
        path.write_bytes(packed.tar({f"cat/{number}.png": picture(number)}))
        assert values(opened(f"tar:{path}")) == [number]
    assert len([*kept.parent.iterdir()]) == 1
    monkeypatch.setenv("BIGGAN_CACHE", "off")
    kept.parent.rename(tmp_path / "gone")
    assert values(opened(f"tar:{path}")) == [2] and not kept.parent.exists()


def test_many_threads_read_more_shards_than_are_kept_open(tmp_path, monkeypatch):
    monkeypatch.setattr(stored, "KEPT_OPEN", 2)
    for i in range(5):
        content = {f"{i}.png": picture(i), f"{i}.cls": str(i % 2).encode()}
        (tmp_path / f"s-{i}.tar").write_bytes(packed.tar(content))
    source = opened(f"webdataset:{tmp_path}")
    wrong = []

    def read(seed):
        for i in np.random.default_rng(seed).integers(0, 5, 40).tolist():
            if values(source, [i]) != [i]:
                wrong.append(i)

    threads = [threading.Thread(target=read, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_braces_stand_for_all_that_they_name():
    assert expanded("a-{008..011}.tar") == [f"a-{i:03d}.tar" for i in range(8, 12)]
    assert expanded("{a,b}{1..2}") == ["a1", "a2", "b1", "b2"]
    assert expanded("plain") == ["plain"] and expanded("{x}") == ["{x}"]
    with pytest.raises(UserError, match="correct"):
        expanded("{0..99999999}")


def test_a_message_names_the_kind_that_reads_what_is_there(tmp_path):
    """Of a path without its kind, and of a folder of files that hold many pictures."""
    sample = {"k.jpg": picture(1, "JPEG"), "k.cls": b"0"}
    folders = {"zips": "x.zip", "shards": "x.tar", "tables": "data/x.parquet"}
    for name, file in {**folders, "net": "ILSVRC2012_img_train.tar"}.items():
        packed.unpacked(tmp_path / name, {file: packed.tar(sample)})
    for name, kind in {"shards": "webdataset", "tables": "parquet", "net": "imagenet"}.items():
        assert f"did you mean '{kind}:{tmp_path / name}'?" in refusal(str(tmp_path / name))
    assert "(.zip is read by zip:FILE)" in refusal(f"folder:{tmp_path / 'zips'}")
    assert "(.tar is read by tar:FILE or" in refusal(f"folder:{tmp_path / 'shards'}")
    shard = tmp_path / "shards" / "x.tar"
    assert f"or write webdataset:{shard} for samples" in refusal(f"tar:{shard}")
    shard.write_bytes(packed.tar({"cat/1.png": picture(1)}))
    assert "or name tar:FILE where folders are classes" in refusal(f"webdataset:{shard}")
    assert f"write zip:{tmp_path / 'p.zip'}" in refusal(
        f"folder:{packed.zipped(tmp_path / 'p.zip', packed.pets())}"
    )
