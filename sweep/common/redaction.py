"""Recognizes secrets in text and removes them."""

import re
from typing import Final

SECRET_NAME: Final = r"[\w-]*(?:key|secret|token|password|passwd|pwd|passphrase|credential|signature|\bsig)[\w-]*"
"""The name of a value that is a secret."""

_SECRETS: Final = (
    # Up to the last @ if a colon precedes the first slash: secret keys may contain slashes, and bucket names no colon.
    (
        re.compile(
            r"((?:[A-Za-z][A-Za-z0-9+.-]*:/{1,3}|\b(?:s3[an]?|gc?s|https?):))"
            r"(?:[^\s/@'\"]*(?::|%3[Aa])[^\s'\"]*|[^\s/@'\"]*)(?:@|%40)"
        ),
        r"\1***@",
    ),
    (re.compile(rf"({SECRET_NAME}(?:=|%3[Dd]))['\"]?[^\s&;,'\"#)]+['\"]?", re.IGNORECASE), r"\1***"),
)


def without_secrets(text: str) -> str:
    """The text with `***` for whatever precedes an @ in an address, and for values of keys, tokens and passwords."""
    for pattern, shown in _SECRETS:
        text = pattern.sub(shown, text)
    return text
