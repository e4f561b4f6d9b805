"""Bin groups: photos that may show the same bin, by a heuristic that rather groups too many.

Photos were numbered in the order in which they were taken, and a bin is often photographed again after one item was
moved. So photos with consecutive keys that share a product are in one group. So are byte-identical photos.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise


def order(key: str) -> tuple[int, int, str]:
    """Sort key of photo keys: numbers first, by value (00121 and 121 are of two series), then other names."""
    if not key.isdecimal():
        return (2, 0, key)
    return (int(len(key) > 1 and key.startswith("0")), int(key), key)


def runs(products: Mapping[str, frozenset[str]]) -> list[list[str]]:
    """Runs of neighbouring keys in which each key shares a product with the one before. `products` are SKUs by key."""
    keys = sorted(products, key=order)
    found: list[list[str]] = [keys[:1]] if keys else []
    for before, key in pairwise(keys):
        if order(before)[0] == order(key)[0] and products[before] & products[key]:
            found[-1].append(key)
        else:
            found.append([key])
    return found


def same_photos(hashes: Mapping[str, str]) -> list[list[str]]:
    """Keys of byte-identical photos, a list for each photo that has several keys."""
    found: dict[str, list[str]] = {}
    for key in sorted(hashes, key=order):
        found.setdefault(hashes[key], []).append(key)
    return [keys for keys in found.values() if len(keys) > 1]


def joined(parts: Iterable[Sequence[str]]) -> list[list[str]]:
    """Lists of keys; those that have a key in common are merged."""
    part_of: dict[str, list[str]] = {}
    for part in parts:
        whole = part_of.get(part[0], [part[0]])
        part_of[part[0]] = whole
        for key in part:
            other = part_of.get(key, [key])
            if other is not whole:
                whole += other
                part_of |= dict.fromkeys(other, whole)
    wholes = {id(whole): whole for whole in part_of.values()}
    return [sorted(whole, key=order) for whole in wholes.values()]


def name_groups(
    products: Mapping[str, frozenset[str]], old: Mapping[str, str], hashes: Mapping[str, str] | None = None
) -> tuple[dict[str, str], dict[str, str]]:
    """Key → group, and the keys that must be left out → why.

    Photos with the same hash are in one group: if copies were in two splits, a model would be tested on a photo that it
    was trained on. A photo that has a group in `old` keeps it, because its split follows from the group's name. A new
    photo joins the group of its neighbours and copies. If these are in two old groups, which may be in different
    splits, the new photo is left out, and so is a copy that an earlier release put into another group.
    """
    groups: dict[str, str] = {}
    links: dict[str, str] = {}
    same = same_photos(hashes or {})
    for run in joined([*runs(products), *same]):
        names = list(dict.fromkeys(old[key] for key in run if key in old))
        for key in run:
            if key in old:
                groups[key] = old[key]
            elif len(names) > 1:
                links[key] = f"links the bin groups {', '.join(names)}, which may be in different splits"
            else:
                groups[key] = names[0] if names else run[0]
    for copies in same:
        first, *others = [key for key in copies if key in groups] or [""]
        for key in others:
            if groups[key] != groups[first]:
                links[key] = f"is the same photo as {first}, which is in the bin group {groups[first]}"
                del groups[key]
    return groups, links
