"""The same photo twice: equal files by their checksum, nearly equal pictures by a small copy.

Pictures are near-duplicates where their difference hashes (64 signs of neighbouring grey levels)
differ in a few places and their thumbnails in a few grey levels: another compression, size or a
frame of the same video, not another photo of the same thing.
"""

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from mobiledets_tf.data import pictures

SIDE = 16
_HASH_SIDE = 8
# Places of the hash that may differ. One more piece than that: some piece is then equal.
_DISTANCE = 3
_PIECES = 4
# Grey levels: on average, and of any of the 16x16 places.
_MEAN_DIFFERENCE, _MOST_DIFFERENCE = 3.0, 20.0
# A picture without contrast has a hash of noise; such ones are compared by their checksum alone.
_LEAST_CONTRAST = 4.0


@dataclass(frozen=True)
class Fingerprint:
    """What is kept of a picture: the checksum of its file and 16x16 grey levels."""

    checksum: bytes
    thumbnail: bytes


def fingerprint(data: bytes) -> Fingerprint:
    """The fingerprint of an image file.

    Raises:
      PictureError: it cannot be decoded.
    """
    return Fingerprint(hashlib.sha256(data).digest(), pictures.grey_thumbnail(data, SIDE))


def groups(prints: Sequence[Fingerprint]) -> list[list[int]]:
    """Indices of pictures that are equal or nearly so, two and more in a group.

    A group is everything that is connected: the first and last frame of a video may differ more.
    """
    parents = list(range(len(prints)))

    def root(index: int) -> int:
        while parents[index] != index:
            parents[index] = index = parents[parents[index]]
        return index

    for one, other in _pairs(prints):
        parents[root(other)] = root(one)
    found = defaultdict(list)
    for index in range(len(prints)):
        found[root(index)].append(index)
    return [members for members in found.values() if len(members) > 1]


def equal_files(prints: Iterable[Fingerprint]) -> dict[bytes, list[int]]:
    """Checksum -> indices of the files that have it."""
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
    thumbnails = thumbnails.reshape(len(firsts), SIDE, SIDE).astype(np.float32)
    contrast = thumbnails.std(axis=(1, 2)) >= _LEAST_CONTRAST
    kept = np.flatnonzero(contrast)
    if len(kept) < 2:
        return
    for one, other in _near(_hashes(thumbnails[kept]), thumbnails[kept]):
        yield firsts[kept[one]], firsts[kept[other]]


def _hashes(thumbnails: np.ndarray) -> np.ndarray:
    """uint64 difference hash of each thumbnail: whether each place is brighter than its neighbour."""
    half = SIDE // _HASH_SIDE
    small = thumbnails.reshape(-1, _HASH_SIDE, half, _HASH_SIDE, half).mean(axis=(2, 4))
    signs = small > np.roll(small, 1, axis=2)
    return np.packbits(signs.reshape(len(small), -1), axis=1).view(np.uint64)[:, 0]


def _near(hashes: np.ndarray, thumbnails: np.ndarray) -> Iterator[tuple[int, int]]:
    """Pairs of near pictures: hashes that are near have one of their four pieces in common.

    What is near to one picture is not compared any more among itself, so that thousands of frames of
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
    difference = np.abs(thumbnails[rest] - thumbnails[one])
    near = (difference.mean(axis=(1, 2)) <= _MEAN_DIFFERENCE) & (
        difference.max(axis=(1, 2)) <= _MOST_DIFFERENCE
    )
    return rest[near].tolist()
