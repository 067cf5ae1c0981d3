"""The client cannot know the Router's layout: nothing that decides about transactions names a shape of the sandbox's."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from lasersell_sync.sandbox.router.shapes import SHAPES, seeded_shape

PACKAGE = Path(__file__).resolve().parents[2] / "lasersell_sync"
#: Everything of the client that reads, judges, signs or sends transactions, data files included.
CLIENT_FILES = sorted(
    path
    for folder in ("trading", "autosell", "_pure", "session", "stream")
    for path in (PACKAGE / folder).rglob("*")
    if path.is_file() and path.suffix not in (".pyc", ".so")
)
ROUTER = "77Fvqi4CFY8AumYEDWbXPwcHf2Hujod6FECSitxPtfon"


def spellings(tag: bytes) -> list[str]:
    return [
        tag.hex(),
        str(list(tag)),
        base64.b64encode(tag).decode(),
        repr(tag)[2:-1],
        str(int.from_bytes(tag, "little")),
    ]


@pytest.mark.parametrize("seed", range(50))
def test_no_client_file_contains_a_discriminator_of_the_sandbox_router(seed: int) -> None:
    """Whatever seed draws it, in hex, as a list, in base64, escaped or as a number."""
    texts = [path.read_text(errors="replace").lower() for path in CLIENT_FILES]
    assert len(texts) > 20
    for number in range(len(SHAPES)):
        shape = seeded_shape(seed, number)
        if shape.tag_bytes < 4:
            continue  # so short that chance finds it anywhere
        for spelling in (*spellings(shape.buy_tag), *spellings(shape.sell_tag)):
            assert not any(spelling.lower() in text for text in texts), (seed, shape.name)


def test_no_layout_data_lists_the_router() -> None:
    """The client may know the Router's address as that of a program it cannot read, and no instruction of it."""
    naming = [path for path in CLIENT_FILES if ROUTER in path.read_text(errors="replace")]
    assert [path.name for path in naming] == ["addresses.json"], "the address belongs into one place"
    assert "lasersell_router" not in (naming[0].parent / "programs.json").read_text()
