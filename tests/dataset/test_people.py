"""Which images of a person are visits that are processed together, and what is said of them."""

from dataclasses import replace

import pytest

from bids_inpaint.dataset.image import Image
from bids_inpaint.dataset.people import people, together


def image(**entities: str) -> Image:
    entities = {"sub": "01"} | entities
    return Image(
        "/data/bids/sub-01/ses-1/anat/" + "_".join(f"{k}-{v}" for k, v in entities.items()), "", entities
    )


def visits(*images: Image) -> list[tuple[str, ...]]:
    return [one.visits for one in together(images)]


@pytest.mark.parametrize(
    "images",
    [
        [image()],
        [image(run="1"), image(run="2")],
        [image(ses="1", run="1"), image(ses="1", run="2")],
        [image(sub="01", ses="1"), image(sub="02", ses="2")],
    ],
)
def test_people_without_two_sessions_are_processed_as_ever(images):
    assert together(images) == images
    assert people(together(images)) == []


def test_sessions_of_a_person_are_visits():
    images = [image(ses="1"), image(ses="2"), image(sub="02", ses="1")]
    names = ("sub-01_ses-1", "sub-01_ses-2")
    assert visits(*images) == [names, names, ()]
    (person,) = people(together(images))
    assert [one.prefix for one in person.images] == list(names)
    assert person.years == (None, None)


def test_one_image_of_a_session_is_its_visit_and_of_the_kind_that_most_have():
    images = [
        image(ses="1", acq="high"), image(ses="1", acq="low", run="1"), image(ses="1", acq="low", run="2"),
        image(ses="2", acq="low"), image(ses="2", acq="low", ce="gad"),
    ]  # fmt: skip
    names = ("sub-01_ses-1_acq-low_run-1", "sub-01_ses-2_acq-low")
    found = together(images)
    assert [one.prefix for one in found if one.visits] == list(names)
    assert {one.visits for one in found if one.visits} == {names}
    assert all("another image stands for its session" in one.notes[-1] for one in found if not one.visits)


def test_a_given_affine_gives_way_to_that_of_all_visits():
    given = replace(image(ses="1"), xfm=("a", "b"), sources=["bids:x:a_xfm.txt", "bids:x:brain_mask.nii"])
    first, second = together([given, image(ses="2")])
    assert first.xfm is None
    assert first.sources == ["bids:x:brain_mask.nii"]
    assert "the given affine is not used" in first.warnings[-1]
    assert "the given affine" not in " ".join(second.warnings)
