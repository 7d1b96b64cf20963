"""Keys of an apiserver that somebody watches: good for months, where those of tests are for an hour."""

from __future__ import annotations

import secrets
from datetime import UTC, datetime

from tests.support.kube import HOST
from xdserve.kube.material import BUNDLE, CERTIFICATE, KEY, renewed, to_data

TOKEN_SECONDS = 86_400
"""Of the tokens of ServiceAccounts, which nobody renews here."""


def write_keys(folder):
    """Write what `tests.support.kube.Apiserver` finds in its folder and does not make then."""
    keys = folder / "keys"
    keys.mkdir(parents=True)
    for name in ("serving", "accounts"):
        data = to_data(renewed(None, ("localhost", HOST), datetime.now(UTC)))
        (keys / f"{name}.pem").write_text(data[CERTIFICATE])
        (keys / f"{name}.key").write_text(data[KEY])
        if name == "serving":
            (keys / "ca.pem").write_text(data[BUNDLE])
    (keys / "tokens.csv").write_text(f'{secrets.token_hex(16)},admin,admin,"system:masters"\n')
