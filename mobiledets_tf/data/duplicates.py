"""Finds duplicate images: equal files by their checksum, near-duplicates by a thumbnail.

Two images are near-duplicates if their difference hashes (64 bits, each of which compares two
neighbouring grey levels) differ in only a few bits and their thumbnails by only a few grey levels.
This finds other compressions, other sizes and other frames of the same video, but not other photos
of the same object.
"""

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from mobiledets_tf.data import image_files

SIDE = 16
_HASH_SIDE = 8
# Number of hash bits that may differ. The hash is cut into one more piece than that, so that near
# hashes have at least one piece in common.
_DISTANCE = 3
_PIECES = 4
# Grey levels by which near thumbnails may differ: on average, and in any of the 16x16 pixels.
_MEAN_DIFFERENCE, _MOST_DIFFERENCE = 3.0, 20.0
# Lowest standard deviation of grey levels. The hash of an image with less contrast is noise, so such
# images are compared by their checksum alone.
_LEAST_CONTRAST = 4.0
# Number of thumbnails converted to float32 together.
_AT_A_TIME = 1024


@dataclass(frozen=True)
class Fingerprint:
    """Fingerprint of an image: the SHA-256 checksum of its file and a thumbnail of 16x16 grey levels."""

    checksum: bytes
    thumbnail: bytes


def fingerprint(data: bytes) -> Fingerprint:
    """Computes the fingerprint of an image file.

    Raises:
      PictureError: the image cannot be decoded.
    """
    return Fingerprint(hashlib.sha256(data).digest(), image_files.grey_thumbnail(data, SIDE))


def groups(prints: Sequence[Fingerprint]) -> list[list[int]]:
    """Groups the indices of images that are identical or nearly so; each group has at least two.

    A group is a connected component, so the first and last frame of a video may differ more.
    """
    return [members for members in components(len(prints), _pairs(prints)) if len(members) > 1]


def components(count: int, pairs: Iterable[tuple[int, int]]) -> list[list[int]]:
    """Returns the connected components of a graph, each in ascending order.

    Args:
      count: number of nodes, which are numbered from 0.
      pairs: the edges.
    """
    parents = list(range(count))

    def root(index: int) -> int:
        while parents[index] != index:
            parents[index] = index = parents[parents[index]]
        return index

    for one, other in pairs:
        parents[root(other)] = root(one)
    found = defaultdict(list)
    for index in range(count):
        found[root(index)].append(index)
    return list(found.values())


def equal_files(prints: Iterable[Fingerprint]) -> dict[bytes, list[int]]:
    """Maps each checksum to the indices of the files that have it."""
    found = defaultdict(list)
    for index, each in enumerate(prints):
        found[each.checksum].append(index)
    return dict(found)


def _pairs(prints: Sequence[Fingerprint]) -> Iterator[tuple[int, int]]:
    firsts = []
    for members in equal_files(prints).values():
        firsts.append(members[0])
        yield from ((members[0], other) for other in members[1:])
    if len(firsts) < 2:
        return
    thumbnails = np.frombuffer(b"".join(prints[index].thumbnail for index in firsts), np.uint8)
    thumbnails = thumbnails.reshape(len(firsts), SIDE, SIDE)
    contrast = _in_parts(lambda part: part.std(axis=(1, 2)), thumbnails) >= _LEAST_CONTRAST
    kept = np.flatnonzero(contrast)
    if len(kept) < 2:
        return
    thumbnails = thumbnails[kept]
    for one, other in _near(_in_parts(_hashes, thumbnails), thumbnails):
        yield firsts[kept[one]], firsts[kept[other]]


def _in_parts(measure: Callable[[np.ndarray], np.ndarray], thumbnails: np.ndarray) -> np.ndarray:
    """Applies a function to float32 copies of the thumbnails, part by part to save memory."""
    starts = range(0, len(thumbnails), _AT_A_TIME)
    return np.concatenate(
        [measure(thumbnails[start : start + _AT_A_TIME].astype(np.float32)) for start in starts]
    )


def _hashes(thumbnails: np.ndarray) -> np.ndarray:
    """Computes the uint64 difference hash of each thumbnail: is each cell brighter than its neighbour?"""
    half = SIDE // _HASH_SIDE
    small = thumbnails.reshape(-1, _HASH_SIDE, half, _HASH_SIDE, half).mean(axis=(2, 4))
    signs = small > np.roll(small, 1, axis=2)
    return np.packbits(signs.reshape(len(small), -1), axis=1).view(np.uint64)[:, 0]


def _near(hashes: np.ndarray, thumbnails: np.ndarray) -> Iterator[tuple[int, int]]:
    """Yields pairs of near-duplicates, comparing only images with one of four hash pieces in common.

    Images found near to one image are not compared with each other, so that thousands of frames from
    one camera cost little.
    """
    for shift in range(0, 64, 64 // _PIECES):
        buckets = defaultdict(list)
        for index, piece in enumerate(((hashes >> np.uint64(shift)) & np.uint64(0xFFFF)).tolist()):
            buckets[piece].append(index)
        for members in buckets.values():
            while len(members) > 1:
                one, *rest = members
                near = _matches(one, rest, hashes, thumbnails)
                yield from ((one, other) for other in near)
                found = set(near)
                members = [other for other in rest if other not in found]


def _matches(one: int, others: list[int], hashes: np.ndarray, thumbnails: np.ndarray) -> list[int]:
    rest = np.array(others)
    rest = rest[np.bitwise_count(hashes[rest] ^ hashes[one]) <= _DISTANCE]
    if not len(rest):
        return []
    difference = np.abs(thumbnails[rest].astype(np.int16) - thumbnails[one])
    near = (difference.mean(axis=(1, 2)) <= _MEAN_DIFFERENCE) & (
        difference.max(axis=(1, 2)) <= _MOST_DIFFERENCE
    )
    return rest[near].tolist()
