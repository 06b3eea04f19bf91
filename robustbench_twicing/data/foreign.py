"""Layouts of data sets that are not read here, and by what they are known."""

from collections.abc import Iterator

from robustbench_twicing.data.archives import Tree, join
from robustbench_twicing.data.foreign_names import foreign_name

_SHARD_LABELS = (".cls", ".json", ".txt", ".cls.txt")
_LOOKED_AT = 200


def foreign_layout(tree: Tree) -> str | None:
    """What a tree looks like that is no data set in class folders, in words; None if nothing is recognised."""
    for path in _some_paths(tree):
        name = path.rpartition("/")[2].lower()
        what = foreign_name(name)
        if what:
            return f"{what}, such as {tree.where(path)}"
        if name in ("test_batch", "data_batch_1", "batches.meta"):
            return f'CIFAR as python batches ({tree.where(path)}): layout = "cifar" reads it'
    return _webdataset(tree)


def _some_paths(tree: Tree) -> Iterator[str]:
    """Folders and files at the top and two levels below it, a few of each folder."""
    level = [""]
    for _ in range(3):
        below = []
        for folder in level:
            try:
                folders, files = tree.listing(folder)
            except OSError:
                continue
            yield from (join(folder, name) for name in (*files[:_LOOKED_AT], *folders[:_LOOKED_AT]))
            below += [join(folder, name) for name in folders[:20]]
        level = below[:100]


def _webdataset(tree: Tree) -> str | None:
    """Shards hold KEY.jpg and KEY.cls beside each other."""
    files = set(tree.listing("").files)
    for name in sorted(files)[:_LOOKED_AT]:
        key = name.partition(".")[0]
        images = [f"{key}{ending}" for ending in (".jpg", ".jpeg", ".png", ".webp")]
        if any(image in files for image in images) and any(f"{key}{ending}" in files for ending in _SHARD_LABELS):
            return f"WebDataset shards ({key}.* in {tree.where('').removesuffix(': top')})"
    return None
