"""What users call does not change unnoticed: the public names and signatures are those of a reviewed text."""

from tests.kit.surface import REVIEWED, surface


def test_the_public_names_and_signatures_are_the_reviewed_ones() -> None:
    assert surface() == REVIEWED.read_text(encoding="utf-8"), (
        "If the change is meant, run `make surface` and review it."
    )
