"""Layouts of data sets that are not read here, by the names of their files and their first bytes."""

import re

_BY_NAME: tuple[tuple[str, str], ...] = (
    (r"(data|lock)\.mdb", "an LMDB database"),
    (r".*\.lmdb", "an LMDB database"),
    (r".*\.tfrecords?([-.].*)?", "TFRecord files (TensorFlow Datasets)"),
    (r".*\.parquet", "Parquet files (as Hugging Face stores data sets)"),
    (r".*\.arrow", "Arrow files (a data set that Hugging Face's datasets saved)"),
    (r".*\.(h5|hdf5)", "HDF5 files"),
    (r".*\.beton", "an FFCV file"),
    (r".*-idx[13]-ubyte(\.gz)?", "MNIST's idx files"),
    (r".*\.rec", "MXNet's RecordIO"),
    (
        r"objectnet(-1\.0)?|air_freshener|folder_to_objectnet_label\.json|objectnet_to_imagenet_1k\.json",
        "ObjectNet, which the suite objectnet reads",
    ),
    (r".*\.py", "a data set script of Hugging Face's, which is code and is never run"),
)


def foreign_name(name: str) -> str | None:
    """What a file of this name belongs to, in words; None if nothing is recognised."""
    return next((what for pattern, what in _BY_NAME if re.fullmatch(pattern, name.lower())), None)


def foreign_file(name: str, start: bytes) -> str | None:
    """The same, by the file's first bytes too."""
    by_magic = {b"PAR1": "x.parquet", b"ARROW1": "x.arrow", b"\x89HDF": "x.h5"}
    name = next((known for magic, known in by_magic.items() if start.startswith(magic)), name)
    return foreign_name(name)
