"""How a data set is to be read: where its images and masks lie, and what its masks mean."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from ..settings.config import Config

NOTHING_IGNORED = -1


class MaskReading(NamedTuple):
    """What the values of a mask mean.

    object: "auto" (above 128, or 1 in a mask of 0 and 1), "nonzero", or the stored values that are
    object, as "1,3". invert: what is read as object is background, and the other way round. ignore:
    the stored value of pixels that count nowhere, -1: none. exif: whether the mask was drawn on the
    photo as it is "shown" or as it is "stored"; "auto": as the shape tells, else as shown.
    """

    object: str = "auto"
    invert: bool = False
    ignore: int = NOTHING_IGNORED
    exif: str = "auto"

    @property
    def values(self) -> tuple[int, ...]:
        """The stored values that are object; none for "auto" and "nonzero"."""
        if self.object in ("auto", "nonzero"):
            return ()
        return tuple(int(value) for value in self.object.split(","))


PLAIN = MaskReading()


@dataclass(frozen=True)
class Reading:
    """Where images and masks lie below a root, and what masks mean; "" finds out by itself.

    images, masks: folders or patterns below the root, several with commas. suffix: what a mask's
    name has more than its image's.
    """

    images: str = ""
    masks: str = ""
    suffix: str = ""
    how: MaskReading = PLAIN

    @classmethod
    def of(cls, config: Config) -> Reading:
        """Return what the settings say."""
        how = MaskReading(
            config.mask_object, config.mask_invert, config.ignore_label, config.mask_exif
        )
        return cls(config.image_folder, config.mask_folder, config.mask_suffix, how)

    def in_words(self) -> str:
        """Return the flags that this is; "" for none."""
        how, words = self.how, []
        for flag, value in (
            ("image-folder", self.images),
            ("mask-folder", self.masks),
            ("mask-suffix", self.suffix),
            ("mask-object", how.object if how.object != "auto" else ""),
            ("mask-exif", how.exif if how.exif != "auto" else ""),
            ("ignore-label", str(how.ignore) if how.ignore != NOTHING_IGNORED else ""),
        ):
            words += [f"--{flag} {value}"] if value else []
        return " ".join([*words, *(["--mask-invert"] if how.invert else [])])


AUTOMATIC = Reading()
