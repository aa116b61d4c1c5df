from __future__ import annotations

import pytest

from trainables.data.positive import positive_class


@pytest.mark.parametrize(
    ("classes", "positive"),
    [
        (("diseased", "healthy"), "diseased"),
        (("diseased", "normal"), "diseased"),
        (("No_findings", "Pneumonia"), "Pneumonia"),
        (("Benign", "malignant"), "malignant"),
        (("0", "1"), "1"),
        (("No Finding", "Effusion"), "Effusion"),
        (("atypical", "non-typical"), "atypical"),
        (("negative", "positive"), "positive"),
        (("CONTROL", "case"), "case"),
        (("adenoma", "nodule"), "nodule"),
        (("hcc", "normal variant"), "normal variant"),
        (("healthy", "normal"), "normal"),
        (("AD", "CN"), "AD"),
        (("AD", "Healthy control"), "AD"),
        (("case", "ctrl"), "case"),
        (("asd", "HC"), "asd"),
        (("CTRL", "adhd"), "adhd"),
        (("Healthy_Controls", "ASD"), "ASD"),
        (("healthy-control", "ASD"), "ASD"),
        (("benign", "normal"), "benign"),
        (("benign", "a_tumour"), "a_tumour"),
        (("+", "-"), "+"),
        (("Demented", "Nondemented"), "Demented"),
        (("Parasitized", "Uninfected"), "Parasitized"),
        (("CT_COVID", "CT_NonCOVID"), "CT_COVID"),
        (("ctcovid", "ctnoncovid"), "ctcovid"),
        (("COVID19", "NonCOVID"), "COVID19"),
        (("DR", "NoDR"), "DR"),
        (("affected", "unaffected"), "affected"),
        (("diseased", "undiseased"), "diseased"),
        (("Infected", "Not infected"), "Infected"),
        (("lesion", "without lesion"), "lesion"),
        (("CT_with_lesion", "CT_without_lesion"), "CT_with_lesion"),
        (("MI", "w/o MI"), "MI"),
    ],
)
def test_the_positive_class_is_the_one_that_is_not_named_as_negative(classes: tuple[str, str], positive: str) -> None:
    assert classes[positive_class(classes)] == classes[::-1][positive_class(classes[::-1])] == positive


@pytest.mark.parametrize(
    ("classes", "positive"),
    [
        (("mass", "nodule"), "nodule"),
        (("actinomyces", "nocardia"), "nocardia"),
        (("bilateral", "unilateral"), "unilateral"),
        (("cellular pneumonia", "nonspecific pneumonia"), "nonspecific pneumonia"),
        (("lg", "lung"), "lung"),
        (("1", "un"), "un"),
    ],
)
def test_a_name_that_begins_like_a_negation_denies_nothing(classes: tuple[str, str], positive: str) -> None:
    assert classes[positive_class(classes)] == classes[::-1][positive_class(classes[::-1])] == positive


@pytest.mark.parametrize(
    ("classes", "positive"),
    [
        (("normal", "Not normal"), "Not normal"),
        (("healthy", "Not normal"), "Not normal"),
        (("normal", "nonnormal"), "nonnormal"),
        (("healthy", "unhealthy"), "unhealthy"),
        (("benign", "non-benign"), "non-benign"),
        (("stable", "unstable"), "unstable"),
    ],
)
def test_what_denies_something_good_is_the_positive_class(classes: tuple[str, str], positive: str) -> None:
    assert classes[positive_class(classes)] == classes[::-1][positive_class(classes[::-1])] == positive


def test_a_positive_class_exists_among_two_only() -> None:
    with pytest.raises(ValueError, match="among two classes; got 3"):
        positive_class(("a", "b", "c"))
