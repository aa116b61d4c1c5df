"""Where the images of a search come from. A search's record holds it, so that what reads them is imported at use."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from spaces.protocol import OWN_SPLITS

if TYPE_CHECKING:
    from trainables.data.cohort import Cohort
    from trainables.data.decoding import OnProgress
    from trainables.data.labels import LabelTable
    from trainables.data.readers import SliceRule


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Where a search's images come from and how they are read: enough to read them again.

    Args:
        data: the folder or archive, absolute.
        labels: another table than its labels.csv, or None.
        split_file: a table of fixed parts, ``OWN_SPLITS``, or None.
        slice_rule: which slice of a volume is read.
        skip_bad_images: whether unreadable images are left out.
        is_phantom: whether the images are synthetic.
    """

    data: str
    labels: str | None = None
    split_file: str | None = None
    slice_rule: SliceRule = None
    skip_bad_images: bool = False
    is_phantom: bool = False

    def table(self) -> LabelTable:
        """The labelled images, with the parts of the split file where there is one. Raises: DataError."""
        from trainables.data.labels import read_labels
        from trainables.data.split_file import with_parts

        table = read_labels(Path(self.data), self.labels)
        if self.split_file is None:
            return table
        return with_parts(table, None if self.split_file == OWN_SPLITS else Path(self.split_file))

    def absolute(self) -> Source:
        """The same source, named so that it is found from every folder."""
        inside = self.labels is None or (Path(self.data) / self.labels).is_file()
        labels = self.labels if inside else str(Path(str(self.labels)).resolve())
        own = self.split_file in (None, OWN_SPLITS)
        split_file = self.split_file if own else str(Path(str(self.split_file)).resolve())
        return replace(self, data=str(Path(self.data).resolve()), labels=labels, split_file=split_file)

    def digest(self, table: LabelTable) -> str:
        """The digest of a table's files, rows and reading: that of the cohort decoded from it."""
        from trainables.data.reading import table_digest

        return table_digest(table, slice_rule=self.slice_rule, is_phantom=self.is_phantom)

    def decode(self, table: LabelTable, *, cache: Path, on_progress: OnProgress | None = None) -> Cohort:
        """Decode the images of a table. Raises: DataError on images that cannot be used."""
        from trainables.data.reading import decode

        return decode(
            table,
            cache=cache,
            skip_bad_images=self.skip_bad_images,
            slice_rule=self.slice_rule,
            is_phantom=self.is_phantom,
            on_progress=on_progress,
        )
