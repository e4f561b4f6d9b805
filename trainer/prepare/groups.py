"""Bin groups: sets of photos that may show the same bin. If in doubt, the heuristic makes groups too large.

Photos were numbered in the order in which they were taken, and a bin is often photographed again after one item was
moved. So photos with consecutive keys that share a product are in one group. So are byte-identical photos.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise


def sort_key(key: str) -> tuple[int, int, str]:
    """Return a sort key that puts numeric photo keys first, by value, and then other names.

    Keys with leading zeros are a separate series: 00121 and 121 are different photos.
    """
    if not key.isdecimal():
        return (2, 0, key)
    return (int(len(key) > 1 and key.startswith("0")), int(key), key)


def product_runs(products: Mapping[str, frozenset[str]]) -> list[list[str]]:
    """Split the sorted keys into runs in which each key shares a product with its predecessor.

    `products` maps a key to its SKUs.
    """
    keys = sorted(products, key=sort_key)
    runs: list[list[str]] = [keys[:1]] if keys else []
    for previous, key in pairwise(keys):
        if sort_key(previous)[0] == sort_key(key)[0] and products[previous] & products[key]:
            runs[-1].append(key)
        else:
            runs.append([key])
    return runs


def identical_photos(hashes: Mapping[str, str]) -> list[list[str]]:
    """Group the keys of byte-identical photos: one list for each photo that has several keys."""
    keys_of_hash: dict[str, list[str]] = {}
    for key in sorted(hashes, key=sort_key):
        keys_of_hash.setdefault(hashes[key], []).append(key)
    return [keys for keys in keys_of_hash.values() if len(keys) > 1]


def merge_overlapping(lists: Iterable[Sequence[str]]) -> list[list[str]]:
    """Merge lists that have a key in common, also through other lists."""
    merged_of: dict[str, list[str]] = {}
    for keys in lists:
        merged = merged_of.get(keys[0], [keys[0]])
        merged_of[keys[0]] = merged
        for key in keys:
            other = merged_of.get(key, [key])
            if other is not merged:
                merged += other
                merged_of |= dict.fromkeys(other, merged)
    distinct = {id(merged): merged for merged in merged_of.values()}
    return [sorted(merged, key=sort_key) for merged in distinct.values()]


def assign_groups(
    products: Mapping[str, frozenset[str]], old: Mapping[str, str], hashes: Mapping[str, str] | None = None
) -> tuple[dict[str, str], dict[str, str]]:
    """Assign each key to a group. Returns key → group, and for keys that must be left out, key → reason.

    Photos with the same hash are in one group: if copies were in two splits, a model would be tested on a photo that it
    was trained on. A photo that has a group in `old` keeps it, because its split follows from the group's name. A new
    photo joins the group of its neighbours and copies. If these are in two old groups, which may be in different
    splits, the new photo is left out, and so is a copy that an earlier release put into another group.
    """
    groups: dict[str, str] = {}
    left_out: dict[str, str] = {}
    copies = identical_photos(hashes or {})
    for related in merge_overlapping([*product_runs(products), *copies]):
        names = list(dict.fromkeys(old[key] for key in related if key in old))
        for key in related:
            if key in old:
                groups[key] = old[key]
            elif len(names) > 1:
                left_out[key] = f"links the bin groups {', '.join(names)}, which may be in different splits"
            else:
                groups[key] = names[0] if names else related[0]
    for keys in copies:
        first, *others = [key for key in keys if key in groups] or [""]
        for key in others:
            if groups[key] != groups[first]:
                left_out[key] = f"is the same photo as {first}, which is in the bin group {groups[first]}"
                del groups[key]
    return groups, left_out
