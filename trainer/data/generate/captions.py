"""Human sentences with a mask: captions that begin with the only thing of its category in a picture."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

from rvos_edge.errors import UserError
from rvos_edge.nouns import Nouns, load_nouns
from rvos_edge.trainer.data.readers.base import tidy
from rvos_edge.wordings import main_noun

_SINGULAR = re.compile(r"^(?:a|an|the|one)\s")
# "A man and a dog", "a woman with her child": the sentence is about more than its first noun.
_SEVERAL = re.compile(r"^[^,]*?\b(?:and|or)\s+(?:a|an|the|another|his|her|two|three)\b.*\b(?:are|were)\b")
_JOINED = re.compile(r"^(?:a|an|the|one)\s+(?:[a-z'-]+\s+){1,3}and\s")
_NO_THING = re.compile(
    r"^(?:a|an|the)\s+(?:\S+\s+){0,2}(?:picture|photo|photograph|image|view|shot|close|group|couple|pair|bunch)\b"
)
_LONGEST = 16
"""Words of a sentence."""


def referring_captions(captions: Sequence[str], categories: Sequence[str]) -> dict[int, tuple[str, ...]]:
    """The captions that refer to one object each.

    A caption counts when its first noun, in the singular, means a category of which the picture holds exactly one.

    Args:
        captions: sentences about a picture.
        categories: of all its annotated objects.

    Returns:
        The sentences, in lower case without the full stop, by the index of their object.

    Example:
        >>> referring_captions(["A man riding a wave.", "Two men surf", "A photo of a dog"], ["person", "surfboard"])
        {0: ('a man riding a wave',)}
    """
    nouns = load_nouns()
    out: dict[int, tuple[str, ...]] = {}
    for caption in captions:
        sentence = tidy(re.sub(r"[^a-z',0-9 -]+", " ", caption.lower())).strip(" ,-")
        category = _category(sentence, nouns)
        if category is not None and list(categories).count(category) == 1:
            index = list(categories).index(category)
            out[index] = (*out.get(index, ()), sentence)
    return out


def read_captions(path: Path) -> dict[str, list[str]]:
    """Read a JSON file of sentences by file name.

    Raises:
        UserError: it is missing or something else.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return {str(name): [str(one) for one in sentences] for name, sentences in content.items()}
    except FileNotFoundError as error:
        raise UserError(f"the captions {path} do not exist; leave captions out or give their file") from error
    except (ValueError, AttributeError, TypeError) as error:
        raise UserError(f"{path} holds no captions by file name; give a JSON object of lists") from error


def _category(sentence: str, nouns: Nouns) -> str | None:
    """The category of the one thing that a sentence is about."""
    if len(sentence.split()) > _LONGEST:
        return None
    if any(pattern.match(sentence) for pattern in (_NO_THING, _JOINED, _SEVERAL)):
        return None
    found = main_noun(sentence, nouns)
    if found is None or found.plural:
        return None
    path = {found.row, *nouns.above(found.row)}
    category = next((name for name, row in nouns.categories.items() if row in path), None)
    # "Man with a helmet" is headline style; "toast on a plate" is not counted.
    return category if category == "person" or _SINGULAR.match(sentence) else None
