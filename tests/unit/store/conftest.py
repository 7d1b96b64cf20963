"""A store, and the one that a restarted server finds."""

from __future__ import annotations

import pytest

from xdserve.store import Store


@pytest.fixture
def path(tmp_path):
    return tmp_path / "state" / "last-good.sqlite"


@pytest.fixture
def reopen(path):
    """Opens the store again, after a server that ended."""
    stores = []

    def again(at=path):
        for store in stores:
            store.close()
        stores.append(Store.open(at))
        assert stores[-1] is not None
        return stores[-1]

    yield again
    for store in stores:
        store.close()
