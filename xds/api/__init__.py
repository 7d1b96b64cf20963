"""Envoy's API, cut to the fields that xdserve speaks: made by tools/generate.py.

Build messages by keyword. A field of type `google.protobuf.Any` takes `Any.pack(message)`, which keeps the
message as it is: the encoder writes it in one go with what is around it. Durations are `timedelta`, wrappers
(`UInt32Value`, ...) the plain value or None. An unset message or member of a oneof is None.
"""
