"""The language of a page: English in the templates, others as gettext catalogues in `locale/`."""

from __future__ import annotations

import gettext
from functools import cache
from pathlib import Path
from typing import Final

FOLDER: Final = Path(__file__).parent / "locale"
"""`LANGUAGE/LC_MESSAGES/pages.mo`, as gettext has it."""
DOMAIN: Final = "pages"
ENGLISH: Final = "en"


def language_of(accept: str, folder: Path = FOLDER) -> str:
    """Return the first language of an Accept-Language header that there is; else English."""
    for wish in accept.split(","):
        language = wish.partition(";")[0].strip().partition("-")[0].lower()
        if language == ENGLISH or (language.isalpha() and gettext.find(DOMAIN, folder, [language])):
            return language
    return ENGLISH


@cache
def texts_in(language: str, folder: Path = FOLDER) -> gettext.NullTranslations:
    """Return the texts of a language; those that it lacks are English."""
    return gettext.translation(DOMAIN, folder, [language], fallback=True)
