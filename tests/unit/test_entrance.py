"""Certificates and tokens that change while the program runs, as its metrics count them."""

from __future__ import annotations

import hashlib

from tests.support.wait import wait_until
from xds.identity import Denied, Peer
from xdserve import entrance
from xdserve.metrics import Metrics
from xdserve.settings import Settings

TOKEN = "a-token-of-iris"


def document(token):
    return f"models/iris: [{hashlib.sha256(token.encode()).hexdigest()}]\n"


async def test_tokens_that_cannot_be_used_are_counted_and_the_last_good_stay(tmp_path):
    metrics = Metrics(process=False)
    path = tmp_path / "tokens.yaml"
    path.write_text(document(TOKEN))
    asked = entrance.authenticator(Settings(xds_tokens=path), metrics.credential_failures.inc)

    async def known(token):
        try:
            return await asked.identify(Peer(address="ipv4:127.0.0.1:1", token=token)) == {"models/iris"}
        except Denied:
            return False

    def failures():
        return metrics.registry.get_sample_value("xdserve_credential_failures_total")

    async def told():
        assert await known(TOKEN)  # who comes in is when the file is looked at
        return failures()

    path.write_text("[")
    await wait_until(told, 20, "the failure to be counted")
    path.write_text(document("another"))
    await wait_until(lambda: known("another"), 20, "the new token to be known")
    assert failures() == 1
