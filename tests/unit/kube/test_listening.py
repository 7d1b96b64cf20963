"""Whether Envoys listen at a port: what they acknowledged here, and what other replicas say."""

from __future__ import annotations

import pytest

from translator import names
from translator.objects.ref import KSERVE, XDSERVE, Origin, Ref
from xds.api.envoy.config.core.v3 import Address, SocketAddress
from xds.api.envoy.config.listener.v3 import Listener
from xds.scope import Scope
from xds.server import Consent
from xds.types import ResourceType
from xds.wire import encode, resource
from xdserve.conditions import Delivery, Progress, Refused, digest
from xdserve.kube.listening import Listening

TARGET = Ref(KSERVE, "InferenceService", "models", "iris")
GATEWAY = Ref(XDSERVE, "ServiceGateway", "models", "iris")
PORT = 9090


def scope():
    address = Address(socket_address=SocketAddress(address="0.0.0.0", port_value=PORT))
    body = encode(Listener(name=names.LISTENER, address=address))
    made = Scope(names.gateway(TARGET))
    made.update([resource(ResourceType.LISTENER, names.LISTENER, body, origin=Origin(GATEWAY, "spec"))])
    return made


class Server:
    def __init__(self, consent, found):
        self.consent, self.found = consent, found

    def scope(self, gateway):
        return self.found if gateway == names.gateway(TARGET) else None

    def acknowledged(self, *_):
        return self.consent


SCOPE = scope()
HERE = digest(SCOPE)
DONE, PENDING = Delivery(HERE, Progress.DONE), Delivery(HERE, Progress.PENDING)
ABSENT, EARLIER = Delivery(HERE, Progress.ABSENT), Delivery("another", Progress.DONE)
REFUSED = Delivery(HERE, Progress.DONE, (Refused(GATEWAY, "spec", "in use"),))
OF_OTHERS = Delivery(HERE, Progress.DONE, (Refused(Ref(XDSERVE, "TrafficPolicy", "models", "iris"), "spec", "bad"),))


@pytest.mark.parametrize(
    ("consent", "others", "wanted"),
    [
        (Consent.ALL, [], True),
        (Consent.SOME, [], False),
        (Consent.NONE, [DONE], False),
        # An endpoint that has yet to come, or an edit that is yet to be heard of, is no word on the listener.
        (Consent.ALL, [PENDING], True),
        (Consent.ALL, [EARLIER], True),
        (Consent.ALL, [REFUSED], False),
        (Consent.ALL, [OF_OTHERS], True),
        # All are connected elsewhere, or nowhere.
        (Consent.NO_ENVOY, [], False),
        (Consent.NO_ENVOY, [ABSENT], False),
        (Consent.NO_ENVOY, [DONE, ABSENT], True),
        (Consent.NO_ENVOY, [DONE, PENDING], False),
        (Consent.NO_ENVOY, [DONE, EARLIER], False),
        (Consent.NO_ENVOY, [DONE, REFUSED], False),
    ],
)
def test_a_listener_is_there_when_all_have_taken_it_and_none_refuses(consent, others, wanted):
    assert Listening(Server(consent, SCOPE), lambda _: others).at(TARGET, PORT) is wanted


def test_what_is_not_planned_at_a_port_is_not_there():
    assert not Listening(Server(Consent.ALL, SCOPE), lambda _: []).at(TARGET, PORT + 1)
    assert not Listening(Server(Consent.ALL, Scope(names.gateway(TARGET))), lambda _: []).at(TARGET, PORT)
    assert not Listening(Server(Consent.ALL, None), lambda _: []).at(TARGET, PORT)
