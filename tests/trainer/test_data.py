from __future__ import annotations

import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest

from tests.trainer.drawn import Data, draw, write_index
from trainer.config import DataConfig
from trainer.data.dataset import load_dataset
from trainer.data.index import Row, read_index, split_rule
from trainer.data.loading import read_data
from trainer.data.source import FolderSource, TarSource, open_source
from trainer.data.split import Split, split_of
from trainer.display import Display
from trainer.errors import DataError


def config_of(data: Data) -> DataConfig:
    return DataConfig(photos=data.photos, index=data.index)


@pytest.fixture
def copy(data: Data, tmp_path: Path) -> Data:
    """Return a copy of the data set that a test may damage."""
    shutil.copytree(data.photos, tmp_path / "photos")
    shutil.copy(data.index, tmp_path / "index.csv")
    return Data(tmp_path)


def test_no_group_is_in_two_splits(data: Data) -> None:
    result = load_dataset(config_of(data))
    groups = [set(result[split].groups) for split in Split]
    assert sum(len(group_set) for group_set in groups) == len(set.union(*groups)) == 80
    assert sum(len(result[split]) for split in Split) == 160


def test_adding_photos_keeps_the_splits_of_others(copy: Data) -> None:
    before = load_dataset(config_of(copy))
    random = np.random.default_rng(1)
    rows = [(row.key, row.quantity, row.group) for row in read_index(config_of(copy))]
    for number in range(40):
        draw(number % 8, random).save(copy.photos / f"new{number}.jpg")
        rows.append((f"new{number}", number % 8, f"new{number // 2}"))
    write_index(copy.index, rows)
    after = load_dataset(config_of(copy))
    for split in Split:
        assert set(before[split].keys) <= set(after[split].keys)


def test_labels_beyond_five_are_one_class(data: Data) -> None:
    photos = load_dataset(config_of(data))[Split.TRAIN]
    assert photos.quantities.max() == 7
    assert photos.labels.max() == 6
    assert (photos.labels[photos.quantities == 7] == 6).all()


def test_tar_and_folder_give_the_same_photos(data: Data, tmp_path: Path) -> None:
    file = tmp_path / "photos.tar"
    with tarfile.open(file, "w") as tar:
        tar.add(data.photos, arcname=".")
    folder, packed = FolderSource(data.photos), TarSource(file)
    assert folder.sizes() == packed.sizes()
    assert all(folder.read(key) == packed.read(key) for key in folder.sizes())


def test_two_files_with_the_same_key_are_an_error(copy: Data, tmp_path: Path) -> None:
    """In another folder or with another suffix, the label would be ambiguous."""
    (copy.photos / "more").mkdir()
    shutil.copy(copy.photos / "00003.jpg", copy.photos / "more" / "00002.png")
    with pytest.raises(DataError, match=r"photos: .*00002\.jpg and .*more/00002\.png are both photo 00002; keep one"):
        FolderSource(copy.photos)
    with tarfile.open(tmp_path / "photos.tar", "w") as tar:
        tar.add(copy.photos, arcname=".")
    with pytest.raises(DataError, match=r"photos\.tar: .*00002\.(jpg|png) and .* are both photo 00002; keep one"):
        TarSource(tmp_path / "photos.tar")


def test_compressed_tar_is_refused(data: Data, tmp_path: Path) -> None:
    file = tmp_path / "photos.tar.gz"
    with tarfile.open(file, "w:gz") as tar:
        tar.add(data.photos, arcname=".")
    with pytest.raises(DataError, match=r"is not an uncompressed tar .* unpack it and give the folder"):
        open_source(file)


def test_unreadable_and_missing_photos_are_named_and_left_out(copy: Data) -> None:
    (copy.photos / "00003.jpg").write_bytes(b"")
    (copy.photos / "00004.jpg").write_bytes(b"not an image")
    intact = (copy.photos / "00005.jpg").read_bytes()
    (copy.photos / "00005.jpg").write_bytes(intact[: len(intact) // 2])
    (copy.photos / "00006.jpg").unlink()
    result = load_dataset(config_of(copy))
    assert result.missing == ("00006",)
    assert sorted(result.unreadable) == ["00003", "00004", "00005"]
    assert "empty" in result.unreadable["00003"]
    assert sum(len(result[split]) for split in Split) == 156
    assert result.facts()["unreadable"] == 3


def test_duplicates_are_reported(copy: Data, capsys: pytest.CaptureFixture[str]) -> None:
    rows = read_index(config_of(copy))
    train = next(row for row in rows if row.split is Split.TRAIN and row.quantity == 3)
    held_out = next(row for row in rows if row.split is Split.TEST and row.quantity == 5)
    shutil.copy(copy.photos / f"{train.key}.jpg", copy.photos / f"{held_out.key}.jpg")
    result = read_data(config_of(copy), Display())
    duplicates = tuple(sorted((train, held_out), key=lambda row: row.key))
    assert duplicates in result.duplicates  # like all drawings of empty bins
    assert {row.quantity for copies in result.duplicates if copies != duplicates for row in copies} == {0}
    output = " ".join(capsys.readouterr().err.split())
    named = ", ".join(f"{row.key}: {row.quantity}" for row in duplicates)
    assert "photos in more than one split, under several keys: 2 (00000: 0, 00008: 0, 00016: 0)" in output
    assert f"photos with several labels, under several keys: 1 ({named}); at most one is right" in output
    assert load_dataset(config_of(copy)).duplicates == result.duplicates


def test_nothing_readable_is_an_error(copy: Data) -> None:
    for file in copy.photos.iterdir():
        file.write_bytes(b"")
    with pytest.raises(DataError, match="none of 160 photos can be decoded; 00000: the file is empty"):
        load_dataset(config_of(copy))


def test_a_folder_without_the_indexed_photos_is_an_error(copy: Data, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (copy.photos / "00000.jpg").rename(other / "x.jpg")
    with pytest.raises(DataError, match=r"holds none of the photos of .* such as 00000, .* and 155 more"):
        load_dataset(DataConfig(photos=other, index=copy.index))


def test_an_empty_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no photos"):
        open_source(tmp_path)


def test_classes_are_those_of_the_training_photos(copy: Data) -> None:
    rows = [(row.key, row.quantity, row.group) for row in read_index(config_of(copy)) if row.quantity != 4]
    write_index(copy.index, rows)
    assert load_dataset(config_of(copy)).classes == (0, 1, 2, 3, 5, 6)


def test_held_out_photos_must_show_learned_classes(copy: Data) -> None:
    rows = [(row.key, row.quantity, row.group) for row in read_index(config_of(copy))]
    selected = [row for row in rows if (row[1] == 4) == (split_of(row[2]) is Split.VALIDATION)]
    write_index(copy.index, selected)
    with pytest.raises(DataError, match=r"validation photos show only quantities that no training photo shows \(4\)"):
        load_dataset(config_of(copy))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("key,bin_group\na,g\n", r"no column 'label' \(found: key, bin_group\)"),
        ("", "no column 'key' .found: nothing"),
        ("key,label,bin_group\n", "has no rows"),
        ("key,label,bin_group\na,1,g\nb,two,g\n", "line 3: label 'two' of b is not a whole number"),
        ("key,label,bin_group\na,,g\n", "line 2: label '' of a is not a whole number"),
        ("key,label,bin_group\na,-1,g\n", "line 2: label -1 of a is negative"),
        ("key,label,bin_group\na,1,g\n\nb,1000001,g\n", "line 4: label 1000001 of b is not a number of items in a bin"),
        ("key,label,bin_group\na,99999999999999999999,g\n", "line 2: label 99999999999999999999 of a is not a number"),
        ("key,label,bin_group\na,1,\n", "line 2: bin_group is empty"),
        ("key,label,bin_group\na\n", "line 2: bin_group is empty"),
        ("key,label,bin_group\na,1,g\na,2,g\n", "a is listed twice"),
    ],
)
def test_index_errors_name_file_line_and_column(tmp_path: Path, text: str, message: str) -> None:
    index = tmp_path / "index.csv"
    index.write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=f"index.csv.*{message}"):
        read_index(DataConfig(photos=tmp_path, index=index))


def test_without_a_group_column_each_photo_is_its_own_group(copy: Data, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [f"{row.key},{row.quantity}" for row in read_index(config_of(copy))]
    copy.index.write_text("\n".join(["key,label", *rows]), encoding="utf-8")
    config = config_of(copy)
    assert all(row.group == row.key and row.split is split_of(row.key) for row in read_index(config))
    assert split_rule(config) == "80/10/10 by a hash of the photo's key, seed 0"
    warning = (
        f"warning: {copy.index}: there is no column bin_group, which names the bin group of each photo, so each"
        " photo is treated as a bin of its own."
    )
    display = Display()
    read_data(config, display)
    read_data(config, display)  # as by the next step of a pipeline
    assert " ".join(capsys.readouterr().err.split()).count(warning) == 1
    read_data(config.model_copy(update={"group_column": ""}), Display())  # each photo is of another bin
    assert warning not in " ".join(capsys.readouterr().err.split())
    with pytest.raises(DataError, match=r"no column 'shelf' .* set data\.group_column"):  # explicitly requested
        read_index(config.model_copy(update={"group_column": "shelf"}))


def test_an_empty_group_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "index.csv").write_text(
        ",key,label,bin_group\n0,a,1,\n", encoding="utf-8"
    )  # the index column of pandas
    config = DataConfig(photos=tmp_path, index=tmp_path / "index.csv")
    with pytest.raises(DataError, match="line 2: bin_group is empty"):
        read_index(config)
    assert read_index(config.model_copy(update={"group_column": ""})) == [Row("a", 1, "a", split_of("a"))]


def test_a_missing_index_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"index\.csv: cannot be read"):
        read_index(DataConfig(photos=tmp_path, index=tmp_path / "index.csv"))


def test_keys_are_strings_and_other_columns_are_ignored(tmp_path: Path) -> None:
    index = tmp_path / "index.csv"
    index.write_text("\ufeffwidth,key,label,bin_group\n7,00121,1,00121\n8,121,2,121\n", encoding="utf-8")
    result = read_index(DataConfig(photos=tmp_path, index=index))
    assert result == [Row("00121", 1, "00121", split_of("00121")), Row("121", 2, "121", split_of("121"))]


def test_a_split_column_sets_the_splits(tmp_path: Path) -> None:
    index = tmp_path / "index.csv"
    index.write_text("key,label,bin_group,own\na,1,g,test\nb,1,g,train\n", encoding="utf-8")
    config = DataConfig(photos=tmp_path, index=index, split_column="own")
    assert [row.split for row in read_index(config)] == [Split.TEST, Split.TRAIN]
    index.write_text("key,label,bin_group,own\na,1,g,val\n", encoding="utf-8")
    with pytest.raises(DataError, match="line 2: own is 'val', not one of train, validation, test"):
        read_index(config)
    with pytest.raises(DataError, match=r"no column 'split' .* set data\.split_column"):
        read_index(config.model_copy(update={"split_column": "split"}))


@pytest.mark.parametrize("label", ["1_0", "\u0661", "5.0", "", "five", "0x1", "1e1"])
def test_a_label_must_be_in_digits(tmp_path: Path, label: str) -> None:
    index = tmp_path / "index.csv"
    index.write_text(f"key,label,bin_group\na,{label},g\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"index\.csv, line 2: label .* of a is not a whole number"):
        read_index(DataConfig(photos=tmp_path, index=index))


def test_an_unclosed_quotation_mark_is_an_error(tmp_path: Path) -> None:
    index = tmp_path / "index.csv"
    rows = "".join(f"{number:05},{number % 6},g{number}\n" for number in range(6_000))
    index.write_text('key,label,bin_group\nx,"5,g\n' + rows, encoding="utf-8")
    with pytest.raises(DataError, match=r"index\.csv: is not a CSV in UTF-8") as caught:
        read_index(DataConfig(photos=tmp_path, index=index))
    assert len(str(caught.value)) < 300
    index.write_text(f"key,label,bin_group\nx,{'5' * 120_000},g\n", encoding="utf-8")
    with pytest.raises(DataError, match="is not a whole number") as caught:
        read_index(DataConfig(photos=tmp_path, index=index))
    assert len(str(caught.value)) < 300
