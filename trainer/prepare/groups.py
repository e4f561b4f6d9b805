"""Which photos may show the same bin: a heuristic, on the safe side.

Photos were numbered in the order in which they were taken, and a bin is often photographed again after one item moved.
So photos with consecutive keys that share a product count as one bin.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
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


def name_groups(
    products: Mapping[str, frozenset[str]], old: Mapping[str, str]
) -> tuple[dict[str, str], dict[str, str]]:
    """Key → group, and the keys that must be left out → why.

    A photo that has a group in `old` keeps it, whatever is added, since splits follow from the group's name. A new
    photo joins the group of its neighbours; one that links two old groups, maybe in different splits, is left out.
    """
    groups: dict[str, str] = {}
    links: dict[str, str] = {}
    for run in runs(products):
        names = _unique(old[key] for key in run if key in old)
        for key in run:
            if key in old:
                groups[key] = old[key]
            elif len(names) > 1:
                links[key] = f"links the bin groups {', '.join(names)}, which may be in different splits"
            else:
                groups[key] = names[0] if names else run[0]
    return groups, links


def _unique(names: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(names))
