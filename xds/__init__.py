"""Envoy's discovery protocol: message classes, wire codec, scopes, sessions, server."""
