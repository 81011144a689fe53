"""Whether all processes of a training have the same images: else their gradients do not fit."""

from __future__ import annotations

from collections.abc import Sequence

from ..data.identity import digests
from ..data.selection import Data
from ..errors import InputError, few
from ..machine.distributed import Ranks

Found = tuple[list[str], list[str], list[str]]  # names, paths and digests of a process's images


def check_same_images(data: Data, ranks: Ranks) -> None:
    """Raise InputError where machines have different images: their gradients would not fit.

    Names are compared, and the bytes of all files. Processes of one machine that look into the
    same folder read them once.
    """
    if ranks.world == 1:
        return
    places = ranks.gather((ranks.machine, str(data.root.absolute())))
    own: Found | None = None
    if places.index(places[ranks.rank]) == ranks.rank:
        own = _files(data, contents=len(set(places)) > 1)
    found = ranks.gather(own)
    ranks.from_first(lambda: _compare_images(found, ranks))


def _files(data: Data, *, contents: bool) -> Found:
    pairs = [*data.train, *data.validation]
    names = [pair.name for pair in pairs]
    names.insert(len(data.train), "")  # where training ends
    files = [path for pair in pairs for path in (pair.image, pair.mask)]
    known = digests(files) if contents else {}
    return names, [str(path) for path in files], [known[path] for path in files if contents]


def _compare_images(found: Sequence[Found | None], ranks: Ranks) -> None:
    names, paths, contents = found[0] or ([], [], [])
    for rank, other in enumerate(found):
        if not other:
            continue
        if other[0] != names:
            cut, cut_first = other[0].index(""), names.index("")
            lone = sorted({*other[0]} ^ {*names})
            example = f" ({few(lone)} only on one side)" if lone else ""
            raise InputError(
                f"{ranks.name(rank)} finds {cut} training and {len(other[0]) - cut - 1} "
                f"validation images, {ranks.name(0)} {cut_first} and "
                f"{len(names) - cut_first - 1}, or others by name{example}. Give all machines the "
                "same data set."
            )
        differ = [i for i, digest in enumerate(contents) if digest != other[2][i]]
        if differ:
            raise InputError(
                f"{ranks.name(rank)} has other contents in {len(differ)} of {len(paths)} files "
                f"than {ranks.name(0)}: first in {other[1][differ[0]]}, there "
                f"{paths[differ[0]]}. Give all machines the same data set."
            )
