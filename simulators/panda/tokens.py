"""What a server says of a bearer token that it cannot read. Pure.

A token needs the header Origin (the organisation); its first part must be the JSON of a token's header. Signatures
are not looked at: the subject of a caller comes with the test headers (settings.py).
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping

_FAILED = "ERROR : Token authentication failed. "
# The traceback that the real servers send along, with their own file's name (captured from both).
_NO_ORIGIN = """Token decode failure. 'NoneType' object has no attribute 'replace' Traceback (most recent call last):
  File "/opt/panda/pandaserver/srvcore/panda_request.py", line 36, in decode_token
    vo_role = vo.replace(":", ".")
              ^^^^^^^^^^
AttributeError: 'NoneType' object has no attribute 'replace'
"""


def refuse_token(headers: Mapping[str, str]) -> str | None:
    """Text of the 403 for the token of these headers (names in lower case); None: no token, or a readable one."""
    word, _, token = headers.get("authorization", "").partition(" ")
    if word != "Bearer":
        return None
    if "origin" not in headers:
        return _FAILED + _NO_ORIGIN
    head, dot, _ = token.partition(".")
    if not dot:
        return f"{_FAILED}Invalid token. Not enough segments"
    try:
        text = base64.urlsafe_b64decode(head + "=" * (-len(head) % 4))
    except (binascii.Error, ValueError):
        return f"{_FAILED}Invalid token. Invalid header padding"
    try:
        json.loads(text)
    except ValueError:
        return f"{_FAILED}Invalid token. Invalid header padding"
    return None
