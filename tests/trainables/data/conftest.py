"""A small data set on disk."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from trainables.data.cohort import Cohort
from trainables.data.reading import read_cohort


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Two classes, ``sick`` and ``well``, each with six patients of two slices, and a labels.csv."""
    import SimpleITK

    folder = tmp_path / "fll"
    lines = ["path,label,patient"]
    for number in range(12):
        label = "sick" if number % 2 else "well"
        (folder / label).mkdir(parents=True, exist_ok=True)
        for view in range(2):
            name = f"{label}/p{number:02d}-{view}.mha"
            pixels = np.random.default_rng(10 * number + view).integers(0, 256, (20, 24)).astype(np.uint8)
            SimpleITK.WriteImage(SimpleITK.GetImageFromArray(pixels), str(folder / name))
            lines.append(f"{name},{label},p{number:02d}")
    (folder / "labels.csv").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture
def cohort(data: Path, tmp_path: Path) -> Cohort:
    return read_cohort(data, cache=tmp_path / "cache")
