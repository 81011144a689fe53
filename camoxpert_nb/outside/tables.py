"""Tables of text that keep each number under its heading, however narrow the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from .terminal import GAP, width

LEAST = 20  # columns that a text which is cut keeps


def table(
    rows: Sequence[Mapping[str, str]], *, cut: str = "", most: int = 0, right: bool = False
) -> list[str]:
    """Return rows as lines under their headings, of at most `most` columns (0: as many as needed).

    What is too wide becomes several tables, a blank line between two, each of which begins with the
    first column. Before that, column `cut` loses the beginning of its texts. right: all columns but
    the first are moved to the right, as numbers are.
    """
    wide = {name: max(width(name), *(width(row[name]) for row in rows)) for name in rows[0]}
    over = sum(wide.values()) + len(GAP) * (len(wide) - 1) - most
    if cut and most and over > 0:
        shorter = max(wide[cut] - over, width(cut), min(wide[cut], LEAST))
        below = most - wide[next(iter(wide))] - len(GAP)  # where it stands in a table of its own
        fits = wide[cut] - shorter >= over
        wide[cut] = shorter if fits else max(min(wide[cut], below), width(cut), 5)
    lines: list[str] = []
    for names in _parts(wide, most):
        lines += [""] * bool(lines)
        for line in [{name: name for name in wide}, *rows]:
            cells = (
                _padded(line[name], wide[name], right=right and bool(place))
                for place, name in enumerate(names)
            )
            lines.append(GAP.join(cells).rstrip())
    return lines


def _parts(wide: Mapping[str, int], most: int) -> Iterator[list[str]]:
    """Yield the columns of each table: the first one, and as many more as fit, at least one."""
    first, *others = wide
    names, taken = [first], wide[first]
    for name in others:
        taken += len(GAP) + wide[name]
        if most and taken > most and len(names) > 1:
            yield names
            names, taken = [first], wide[first] + len(GAP) + wide[name]
        names.append(name)
    yield names


def _padded(text: str, wide: int, *, right: bool) -> str:
    """Return a text of so many columns; a longer one loses its beginning, as paths differ later."""
    while width(text) > wide:
        text = "..." + text.removeprefix("...")[1:] if width(text) > 4 else text[1:]
    blanks = " " * (wide - width(text))
    return blanks + text if right else text + blanks
