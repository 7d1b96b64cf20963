"""The open inference protocol, cut to the fields that are spoken: made by tools/generate.py.

Messages are built as those of xds/api.
"""
