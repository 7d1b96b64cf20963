"""The configuration an Envoy starts with."""
