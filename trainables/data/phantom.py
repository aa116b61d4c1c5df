"""A synthetic cohort: procedural short-axis cardiac MR slices, to try every command without patient data.

Healthy and diseased hearts differ in wall thickness, cavity size and wall texture, with overlap, so that a classifier
is right more often than chance but not always. Nothing here comes from a patient, and nothing learnt here is about one.
"""

from __future__ import annotations

import csv
import secrets
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from trainables.errors import DataError
from trainables.seeding import stream

PHANTOM_VERSION = 1
"""Raised by hand when the same seed draws other images."""

CLASSES = ("diseased", "healthy")
DISEASED_SHARE = 0.6
PIXELS = 96
EDGE_MM = 1.1
"""Width over which one tissue passes into the next (partial volume)."""

README = """SYNTHETIC PHANTOM - NOT PATIENT DATA

Drawn by genmix-search (phantom version {version}, seed {seed}, {patients} patients, {slices} slices each).
The pictures imitate short-axis cardiac MR. They come from formulas, not from people; results on them say nothing
about any disease.
"""

Field: TypeAlias = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Heart:
    """One patient's anatomy; lengths in millimetres, angles in radians, intensities between 0 and 1."""

    spacing: float
    centre: tuple[float, float]
    angle: float
    cavity: float
    flattening: float
    wall: float
    septal_excess: float
    fibrosis: float
    right_ventricle: float
    chest: float
    fat: float
    lung_angle: float
    blood: float
    muscle: float
    lung: float
    liver: float
    gain: float
    noise: float
    bias: tuple[float, float, float]


def write_phantom(folder: Path, *, seed: int = 0, patients: int = 60, slices: int = 4) -> Path:
    """Write a phantom cohort, or leave the one that is there.

    Args:
        folder: what to create: CLASS/*.mha, labels.csv with patients, README.txt. It appears complete or not at all.
        seed: every image descends from it; the same seed writes the same bytes.
        patients: how many, at least 4; three in five are diseased.
        slices: slices of each patient, base to apex.

    Returns:
        ``folder``.

    Raises:
        DataError: ``folder`` exists and is not this phantom.
        ValueError: fewer than 4 patients or no slice.
    """
    if patients < 4 or slices < 1:
        raise ValueError(f"a phantom of {patients} patients with {slices} slices; expected at least 4 and 1.")
    readme = README.format(version=PHANTOM_VERSION, seed=seed, patients=patients, slices=slices)
    if folder.exists():
        _check_existing(folder, readme)
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    building = folder.parent / f".{folder.name}-{secrets.token_hex(4)}"
    building.mkdir()
    try:
        _write_images(building, seed, patients, slices)
        (building / "README.txt").write_text(readme, encoding="utf-8")
        _publish(building, folder, readme)
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return folder


def _check_existing(folder: Path, readme: str) -> None:
    file = folder / "README.txt"
    if not file.is_file() or file.read_text(encoding="utf-8") != readme:
        raise DataError(f"'{folder}' exists and is not the phantom asked for; give another folder or delete it.")


def _publish(building: Path, folder: Path, readme: str) -> None:
    """Rename into place; who loses the race keeps the winner's."""
    try:
        building.rename(folder)
    except OSError:
        _check_existing(folder, readme)


def _write_images(folder: Path, seed: int, patients: int, slices: int) -> None:
    n_diseased = round(DISEASED_SHARE * patients)
    order = np.random.default_rng(stream(seed, "phantom/labels")).permutation(patients)
    rows: list[tuple[str, str, str]] = []
    for number in range(patients):
        label = CLASSES[0] if order[number] < n_diseased else CLASSES[1]
        name = f"phantom-{number:03d}"
        (folder / label).mkdir(exist_ok=True)
        rng = np.random.default_rng(stream(seed, f"phantom/{number}"))
        heart = _draw_heart(rng, diseased=label == CLASSES[0])
        for level in range(slices):
            path = f"{label}/{name}-slice{level}.mha"
            _write_mha(folder / path, draw_slice(heart, level / slices, rng), heart.spacing)
            rows.append((path, label, name))
    with (folder / "labels.csv").open("w", encoding="utf-8", newline="") as stream_:
        writer = csv.writer(stream_, lineterminator="\n")
        writer.writerow(("path", "label", "patient"))
        writer.writerows(sorted(rows))


def _write_mha(path: Path, pixels_HW: NDArray[np.int16], spacing: float) -> None:
    import SimpleITK

    image = SimpleITK.GetImageFromArray(pixels_HW)
    image.SetSpacing((spacing, spacing))
    image.SetMetaData("Modality", "MR")
    image.SetMetaData("ImageComments", "synthetic phantom")
    SimpleITK.WriteImage(image, str(path))


def _draw_heart(rng: np.random.Generator, *, diseased: bool) -> _Heart:
    """Draw a patient. Diseased hearts are thick-walled or dilated, the former more often, and more fibrotic."""
    cavity, wall, septal_excess, fibrosis = 21.0, 8.0, 0.05, 0.1
    if diseased and rng.random() < 0.6:
        cavity, wall, septal_excess, fibrosis = 16.5, 13.0, 0.15, 0.7
    elif diseased:
        cavity, wall, septal_excess, fibrosis = 29.0, 6.5, 0.05, 0.7
    return _Heart(
        spacing=round(float(rng.uniform(1.2, 1.4)), 3),
        centre=(float(rng.normal(0, 3)), float(rng.normal(0, 3))),
        angle=float(rng.normal(0, 0.25)),
        cavity=float(np.clip(rng.normal(cavity, 2.2), 13, 32)),
        flattening=float(rng.uniform(0.9, 1.0)),
        wall=float(np.clip(rng.normal(wall, 1.1), 4.5, 15)),
        septal_excess=float(rng.normal(septal_excess, 0.06)),
        fibrosis=float(np.clip(rng.normal(fibrosis, 0.2), 0, 1)),
        right_ventricle=float(rng.uniform(0.85, 1.2)),
        chest=float(rng.uniform(44, 54)),
        fat=float(rng.uniform(4, 12)),
        lung_angle=float(rng.normal(0.35, 0.25)),
        blood=float(rng.uniform(0.72, 0.88)),
        muscle=float(rng.uniform(0.26, 0.35)),
        lung=float(rng.uniform(0.03, 0.1)),
        liver=float(rng.uniform(0.3, 0.5)),
        gain=float(rng.uniform(560, 660)),
        noise=float(rng.uniform(0.02, 0.045)),
        bias=(float(rng.normal(0, 0.1)), float(rng.normal(0, 0.1)), float(rng.normal(0, 0.07))),
    )


def draw_slice(heart: _Heart, depth: float, rng: np.random.Generator) -> NDArray[np.int16]:
    """One short-axis slice.

    Args:
        heart: the patient.
        depth: 0 at the base, towards 1 at the apex, where the heart is smaller.
        rng: draws papillary muscles, trabeculae, texture and noise.

    Returns:
        int16 (96, 96), from 0.
    """
    axis = (np.arange(PIXELS) - (PIXELS - 1) / 2) * heart.spacing
    down_HW, right_HW = np.meshgrid(axis, axis, indexing="ij")
    picture_HW = _thorax(heart, down_HW, right_HW, rng)
    shift = rng.normal(0, 1.2, size=2)
    down_HW, right_HW = down_HW - heart.centre[0] - shift[0], right_HW - heart.centre[1] - shift[1]
    cosine, sine = np.cos(heart.angle), np.sin(heart.angle)
    across_HW, along_HW = cosine * right_HW + sine * down_HW, cosine * down_HW - sine * right_HW
    picture_HW = _heart(heart, 1 - 0.42 * depth**1.5, picture_HW, across_HW, along_HW, rng)
    y_HW, x_HW = down_HW / axis[-1], right_HW / axis[-1]
    picture_HW = picture_HW * np.exp(heart.bias[0] * y_HW + heart.bias[1] * x_HW + heart.bias[2] * (x_HW**2 + y_HW**2))
    picture_HW = _smooth(picture_HW, 0.55)
    real_HW = picture_HW + heart.noise * rng.standard_normal(picture_HW.shape)
    imaginary_HW = heart.noise * rng.standard_normal(picture_HW.shape)
    return np.rint(heart.gain * np.hypot(real_HW, imaginary_HW)).astype(np.int16)


def _thorax(heart: _Heart, down_HW: Field, right_HW: Field, rng: np.random.Generator) -> Field:
    """What surrounds the heart: lung, diaphragm with liver, chest wall of muscle and fat."""
    vessels_HW = _smooth(rng.standard_normal(down_HW.shape), 1.3)
    picture_HW = heart.lung + 0.05 * np.maximum(0, vessels_HW / vessels_HW.std() - 1)
    tissue_HW = _smooth(rng.standard_normal(down_HW.shape), 2.5)
    tissue_HW *= 0.04 / tissue_HW.std()
    diaphragm_HW = down_HW - 30 - 0.5 * heart.lung_angle * right_HW - 0.008 * np.maximum(0, right_HW + 15) ** 2
    picture_HW = _over(picture_HW, heart.liver + tissue_HW, -diaphragm_HW)
    below_HW = np.where(down_HW < 5, down_HW, 5 + 0.3 * (down_HW - 5))
    wall_HW = heart.chest - np.hypot(1.05 * below_HW - 6, 0.72 * right_HW + 8)
    picture_HW = _over(picture_HW, heart.muscle + 0.05 + tissue_HW, wall_HW)
    picture_HW = _over(picture_HW, 0.85 * heart.blood + 2 * tissue_HW, wall_HW + 7)
    return _over(picture_HW, np.full_like(picture_HW, 0.02), wall_HW + 7 + heart.fat)


def _heart(
    heart: _Heart, size: float, picture_HW: Field, across_HW: Field, along_HW: Field, rng: np.random.Generator
) -> Field:
    """Right ventricle, left ventricle and the fat around them, over what lies behind."""
    radius_HW = np.hypot(across_HW, along_HW / heart.flattening)
    theta_HW = np.arctan2(along_HW, across_HW)
    wobble_HW = 0.02 * np.cos(3 * theta_HW + rng.uniform(0, 6.28)) + 0.015 * np.cos(5 * theta_HW + rng.uniform(0, 6.28))
    cavity_HW = radius_HW - heart.cavity * size * (1 + wobble_HW)
    thickness_HW = heart.wall * (0.75 + 0.25 * size) * (1 - heart.septal_excess * np.cos(theta_HW) + wobble_HW)
    outer_HW = cavity_HW - thickness_HW
    outer = heart.cavity * size + heart.wall
    blood_HW = heart.blood + 0.05 * _texture(rng, 2.0, picture_HW.shape)

    right_radius = 0.86 * outer * heart.right_ventricle * size**0.5
    right_HW = np.hypot((across_HW + 0.72 * outer) / 0.95, along_HW + 2) - right_radius
    trabeculae_HW = 0.12 * np.maximum(0, _texture(rng, 1.1, picture_HW.shape))
    fat_HW = np.full_like(picture_HW, 0.8 * heart.blood)
    picture_HW = _over(picture_HW, fat_HW, np.minimum(outer_HW - 2.5, right_HW - 4.5))
    picture_HW = _over(picture_HW, np.full_like(picture_HW, heart.muscle), right_HW - 2.5)
    picture_HW = _over(picture_HW, blood_HW - trabeculae_HW, right_HW)

    patches_HW = np.maximum(0, _texture(rng, 3.0, picture_HW.shape) - 0.2)
    muscle_HW = heart.muscle + 0.03 * _texture(rng, 1.5, picture_HW.shape) + 0.38 * heart.fibrosis * patches_HW
    picture_HW = _over(picture_HW, muscle_HW, outer_HW)
    picture_HW = _over(picture_HW, blood_HW, cavity_HW)
    for centre in (0.9 + rng.normal(0, 0.15), -0.9 + rng.normal(0, 0.15)):
        distance = heart.cavity * size * rng.uniform(0.55, 0.75)
        muscle_radius = rng.uniform(2.2, 3.8) * size
        papillary_HW = np.hypot(across_HW - distance * np.cos(centre), along_HW - distance * np.sin(centre))
        picture_HW = _over(picture_HW, muscle_HW, papillary_HW - muscle_radius)
    return picture_HW


def _over(behind_HW: Field, front_HW: Field, distance_HW: Field) -> Field:
    """Lay a tissue over what is behind it, where its signed distance is negative, with a soft edge."""
    cover_HW = 0.5 * (1 - np.tanh(distance_HW / EDGE_MM))
    return behind_HW + cover_HW * (front_HW - behind_HW)


def _texture(rng: np.random.Generator, width: float, shape: tuple[int, ...]) -> Field:
    """Smooth noise with mean near 0 and standard deviation 1."""
    noise_HW = _smooth(rng.standard_normal(shape), width)
    return np.asarray(noise_HW / noise_HW.std())


def _smooth(field_HW: Field, width: float) -> Field:
    """Gaussian blur of ``width`` pixels, borders repeated."""
    reach = int(np.ceil(3 * width))
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / width) ** 2)
    kernel /= kernel.sum()
    for axis in (0, 1):
        padding = [(reach, reach) if each == axis else (0, 0) for each in (0, 1)]
        padded_HW = np.pad(field_HW, padding, mode="edge")
        size = field_HW.shape[axis]
        blurred_HW = np.zeros_like(field_HW)
        for tap, weight in enumerate(kernel):
            blurred_HW += weight * padded_HW.take(range(tap, tap + size), axis)
        field_HW = blurred_HW
    return field_HW
