"""Which photos may show the same bin: a heuristic, on the safe side.

Photos were numbered in the order in which they were taken, and a bin is often photographed again after one item moved.
So photos with consecutive keys that share a product count as one bin. So do photos that are the same to the byte.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise


def order(key: str) -> tuple[int, int, str]:
    """Numbers in their order; 00121 and 121 belong to two series. Other names follow, by name."""
    if not key.isdecimal():
        return (2, 0, key)
    return (int(len(key) > 1 and key.startswith("0")), int(key), key)


def runs(products: Mapping[str, frozenset[str]]) -> list[list[str]]:
    """Keys in their order, cut wherever two neighbours share no product. `products` are the SKUs of each photo."""
    keys = sorted(products, key=order)
    found: list[list[str]] = [keys[:1]] if keys else []
    for before, key in pairwise(keys):
        if order(before)[0] == order(key)[0] and products[before] & products[key]:
            found[-1].append(key)
        else:
            found.append([key])
    return found


def same_photos(hashes: Mapping[str, str]) -> list[list[str]]:
    """Keys of photos that are the same to the byte, in their order; of photos that are there more than once."""
    found: dict[str, list[str]] = {}
    for key in sorted(hashes, key=order):
        found.setdefault(hashes[key], []).append(key)
    return [keys for keys in found.values() if len(keys) > 1]


def joined(parts: Iterable[Sequence[str]]) -> list[list[str]]:
    """Lists of keys, put together where they have a key in common."""
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

    Photos that are the same by their `hashes` are of one group, whatever their keys: in two splits, a model would be
    tested on what it has learned by heart. A photo that has a group in `old` keeps it, whatever is added, since splits
    follow from the group's name. A new photo joins the group of its neighbours and copies; one that links two old
    groups, maybe in different splits, is left out, and so is a copy that an earlier release put into another group.
    """
    groups: dict[str, str] = {}
    links: dict[str, str] = {}
    same = same_photos(hashes or {})
    for run in joined([*runs(products), *same]):
        names = _unique(old[key] for key in run if key in old)
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


def _unique(names: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(names))
