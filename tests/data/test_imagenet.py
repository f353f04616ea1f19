"""ImageNet in the official tars and in Kaggle's folder."""

import json

import pytest

from biggan_jax import cli
from biggan_jax.data import open_source
from biggan_jax.errors import UserError
from tests.data import packed
from tests.data.packed import WNIDS, picture, values
from tests.runs import assert_one_error

SIZE = {"resolution": 4, "channels": 3}
IN_KAGGLE = "ILSVRC/Data/CLS-LOC"
TRAIN = [0, 10, 40, 50, 80, 90]


def opened(spec):
    return open_source(spec, **SIZE)


def refusal(spec):
    with pytest.raises(UserError) as caught:
        opened(spec)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def kaggle(tmp_path):
    """The folder of the competition: train by class, val flat with its table."""
    root = tmp_path / "imagenet"
    train = {f"{IN_KAGGLE}/train/{name}": content for name, content in packed.imagenet().items()}
    wnids = [WNIDS[2], WNIDS[0], WNIDS[1]]
    val = {
        f"{IN_KAGGLE}/val/ILSVRC2012_val_0000000{i}.JPEG": picture(20 * i, "JPEG") for i in range(3)
    }
    lines = ["ImageId,PredictionString"]
    lines += [f"ILSVRC2012_val_0000000{i},{wnid} 1 2 3 4 " for i, wnid in enumerate(wnids)]
    table = {"LOC_val_solution.csv": "\n".join(lines).encode()}
    test = {f"{IN_KAGGLE}/test/ILSVRC2012_test_0000000{i}.JPEG": b"x" for i in range(3)}
    return packed.unpacked(root, train | val | test | table)


def test_the_tar_of_tars_and_the_folder_are_the_same_data(tmp_path, kaggle):
    path = tmp_path / "ILSVRC2012_img_train.tar"
    path.write_bytes(packed.tar_of_tars(packed.imagenet()))
    source, folder = opened(f"imagenet:{path}"), opened(f"imagenet:{kaggle}")
    for one in (source, folder, opened(f"imagenet:{tmp_path}"), opened(f"tar:{path}")):
        assert one.class_names == WNIDS
        assert one.labels_of(range(6)).tolist() == [0, 0, 1, 1, 2, 2]
        assert values(one) == TRAIN and values(one, [5, 2]) == [90, 40]
        assert one.digest() == source.digest()
    repacked = tmp_path / "again.tar"
    repacked.write_bytes(packed.tar({f"train/{n}": c for n, c in packed.imagenet().items()}))
    assert opened(f"imagenet:{repacked}").digest() == source.digest()
    for place in (kaggle / "ILSVRC", kaggle / IN_KAGGLE, kaggle / IN_KAGGLE / "train"):
        assert values(opened(f"imagenet:{place}")) == TRAIN
    assert values(opened(f"imagenet:{kaggle}:train")) == TRAIN


def test_validation_images_have_their_classes_from_the_table(tmp_path, kaggle):
    (kaggle / "LOC_synset_mapping.txt").write_text(packed.MAPPING)
    flat = sorted((kaggle / IN_KAGGLE / "val").iterdir())
    path = kaggle / "ILSVRC2012_img_val.tar"
    path.write_bytes(packed.tar({file.name: file.read_bytes() for file in flat}))
    for place in (f"{kaggle}:val", kaggle / IN_KAGGLE / "val", path):
        source = opened(f"imagenet:{place}")
        assert source.class_names == ("tench", f"crane ({WNIDS[1]})", f"crane ({WNIDS[2]})")
        assert values(source) == [20, 40, 0]
        assert source.labels_of(range(3)).tolist() == [0, 1, 2]
    assert opened(f"imagenet:{kaggle}").class_names == source.class_names
    flat[0].unlink()
    assert "1 of the images of" in refusal(f"imagenet:{kaggle}:val")
    (kaggle / "LOC_val_solution.csv").write_text("ImageId,PredictionString\nx,dog 1 2\n")
    assert "names dog, no class of ImageNet" in refusal(f"imagenet:{kaggle}:val")
    (kaggle / "LOC_val_solution.csv").unlink()
    assert "LOC_val_solution.csv, which has their classes, lies nowhere" in refusal(
        f"imagenet:{kaggle}:val"
    )


def test_words_are_the_names_and_no_part_of_the_data(tmp_path):
    path = tmp_path / "train.tar"
    path.write_bytes(packed.tar_of_tars(packed.imagenet()))
    before = opened(f"imagenet:{path}").digest()
    (tmp_path / "words.txt").write_text(f"{WNIDS[1]}\tcrane, a bird\n")
    source = opened(f"imagenet:{path}")
    assert source.class_names == (WNIDS[0], "crane", WNIDS[2]) and source.digest() == before


@pytest.mark.parametrize("odd", ["junk.tar", "junk/", "junk/x.png", "n0144.tar"])
def test_a_folder_that_is_no_class_is_one_line(tmp_path, odd, capsys):
    inner = {f"{wnid}.tar": packed.tar({"x.JPEG": picture(1, "JPEG")}) for wnid in WNIDS}
    content = packed.tar({"y.png": picture(2)}) if odd.endswith("tar") else picture(2)
    path = tmp_path / "t.tar"
    path.write_bytes(packed.tar(inner | {odd: b"" if odd.endswith("/") else content}))
    out = f"--out={tmp_path / 'out'}"
    assert cli.main(["prepare", f"--source=imagenet:{path}", "--resolution=4", out]) == 2
    name = odd.partition("/")[0].removesuffix(".tar")
    assert_one_error(capsys.readouterr(), f"a folder that is no class of ImageNet: {name} .*tar:")


def test_what_is_not_there_is_one_line(tmp_path, kaggle):
    assert "no file or folder" in refusal(f"imagenet:{tmp_path / 'none'}")
    assert "no split 'test' of ImageNet" in refusal(f"imagenet:{kaggle}:test")
    assert "(did you mean 'train'?)" in refusal(f"imagenet:{kaggle}:trian")
    assert "no split 'train' of ImageNet" in refusal(f"imagenet:{tmp_path}")
    (kaggle / IN_KAGGLE / "train" / "dogs").mkdir()
    assert "a folder that is no class of ImageNet: dogs" in refusal(f"imagenet:{kaggle}")


def test_commands_take_the_kinds_and_make_the_same_records(tmp_path, kaggle, capsys):
    """`prepare`, `doctor` and a path without its kind, for each kind of one set of images."""
    images = packed.imagenet()
    whole = [
        (f"{name.removesuffix('.JPEG')}", content, WNIDS.index(name.partition("/")[0]))
        for name, content in images.items()
    ]
    shards = {f"{key}.jpg": content for key, content, _ in whole}
    shards |= {f"{key}.cls": str(y).encode() for key, _, y in whole}
    (tmp_path / "s").mkdir()
    ordered = {name: shards[name] for name in sorted(shards)}
    (tmp_path / "s" / "s-0.tar").write_bytes(packed.tar(ordered))
    (tmp_path / "ILSVRC2012_img_train.tar").write_bytes(packed.tar_of_tars(images))
    packed.zipped(tmp_path / "i.zip", images)
    columns = {"image": [c for _, c, _ in whole], "label": [y for *_, y in whole]}
    packed.parquet(tmp_path / "p.parquet", columns)
    digests = set()
    paths = ("ILSVRC2012_img_train.tar", "i.zip", "p.parquet", "s/s-0.tar")
    kinds = ("imagenet", "zip", "parquet", "webdataset")
    for kind, path in zip(kinds, paths, strict=True):
        out = tmp_path / f"out-{kind}"
        command = ["prepare", "--resolution=4", f"--out={out}", "--json"]
        assert cli.main([*command, f"--source={kind}:{tmp_path / path}"]) == 0
        info = json.loads(capsys.readouterr().out)
        digests.add(info["digest"])
        assert info["histogram"] == [2, 2, 2]
        assert info["source"] == f"{kind}:{tmp_path / path}"
        if kind != "webdataset":
            assert cli.main(["doctor", f"--data={tmp_path / path}"]) == 2
            assert f"did you mean '{kind}:{tmp_path / path}'?" in capsys.readouterr().out
        assert cli.main(["doctor", "--json", f"--data={kind}:{tmp_path / path}"]) == 0
        assert json.loads(capsys.readouterr().out)["images"] == 6
    assert len(digests) == 1
