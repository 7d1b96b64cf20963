"""TLS towards backends, as Envoy's transport socket."""

from __future__ import annotations

from translator.plan import Tls
from xds.api.envoy.config.core.v3 import DataSource, TransportSocket
from xds.api.envoy.extensions.transport_sockets.tls.v3 import (
    CertificateValidationContext,
    CommonTlsContext,
    SubjectAltNameMatcher,
    SubjectAltNameMatcherSanType,
    TlsParameters,
    TlsParametersTlsProtocol,
    UpstreamTlsContext,
)
from xds.api.envoy.type.matcher.v3 import StringMatcher
from xds.api.google.protobuf import Any

TRANSPORT_SOCKET = "envoy.transport_sockets.tls"


def upstream_tls(tls: Tls, *, http2: bool) -> TransportSocket:
    """The transport socket of a cluster whose endpoints are spoken to by TLS."""
    context = UpstreamTlsContext(
        sni=tls.hostname,
        common_tls_context=CommonTlsContext(
            tls_params=_versions(),
            alpn_protocols=["h2"] if http2 else ["http/1.1"],
            validation_context=_validation(tls) if tls.verify else None,
        ),
    )
    return TransportSocket(name=TRANSPORT_SOCKET, typed_config=Any.pack(context))


def _versions() -> TlsParameters:
    """Envoy's own bounds for a client end at TLS 1.2, which some servers do not speak any more."""
    return TlsParameters(
        tls_minimum_protocol_version=TlsParametersTlsProtocol.TLSv1_2,
        tls_maximum_protocol_version=TlsParametersTlsProtocol.TLSv1_3,
    )


def _validation(tls: Tls) -> CertificateValidationContext:
    """Without a file of authorities Envoy believes every certificate."""
    ca = DataSource(filename=tls.ca_file) if tls.ca is None else DataSource(inline_string=tls.ca)
    name = SubjectAltNameMatcher(san_type=SubjectAltNameMatcherSanType.DNS, matcher=StringMatcher(exact=tls.hostname))
    return CertificateValidationContext(trusted_ca=ca, match_typed_subject_alt_names=[name])
