"""The order of a data set's samples: fixed and class-balanced, so that any first N are a fair sample."""

import hashlib
from collections import defaultdict
from collections.abc import Sequence


def balanced_order(sample_ids: Sequence[str], labels: Sequence[int]) -> list[int]:
    """A permutation of positions: one sample of each class in turn, within a class by a hash of the sample id.

    It depends on ids and labels alone, not on the order they come in. A larger prefix contains a smaller one, and as
    long as no class has run out, the classes of a prefix differ by at most one sample.
    """
    if len(set(sample_ids)) != len(sample_ids):
        raise ValueError("sample ids are not unique")
    of_class: dict[int, list[tuple[str, int]]] = defaultdict(list)
    for position, (sample_id, label) in enumerate(zip(sample_ids, labels, strict=True)):
        of_class[label].append((hashlib.sha256(sample_id.encode()).hexdigest(), position))
    turns = [
        (turn, label, position)
        for label, members in of_class.items()
        for turn, (_, position) in enumerate(sorted(members))
    ]
    return [position for _, _, position in sorted(turns)]
