"""The pool that every message class registers itself in, by which `Any` finds classes and type URLs.

Registering also gives a class an `__init__` of the same meaning that takes half the time: dataclass's calls a
function for every field that is not given.
"""

import dataclasses
import functools

import betterproto2


class Pool(betterproto2.MessagePool):
    def register_message(self, package_name, message_name, message_type):
        super().register_message(package_name, message_name, message_type)
        message_type.__init__ = _quick_init(message_type)


def _quick_init(cls):
    names = {"missing": object()}
    parameters, lines = [], []
    for field in dataclasses.fields(cls):
        if field.default_factory in (type(None), bool, int, float, str, bytes):
            names[f"d_{field.name}"] = field.default_factory()
            parameters.append(f"{field.name}=d_{field.name}")
            lines.append(f"    _self.{field.name} = {field.name}")
            continue
        if field.default_factory not in (list, dict):  # of an enum: its class may not be there yet
            names[f"new_{field.name}"] = functools.cache(field.default_factory)
        new = {list: "[]", dict: "{}"}.get(field.default_factory, f"new_{field.name}()")
        parameters.append(f"{field.name}=missing")
        lines.append(f"    _self.{field.name} = {new} if {field.name} is missing else {field.name}")
    head = f"def __init__({', '.join(['_self', *parameters])}):"  # a field may be called `self`
    exec("\n".join([head, *lines, "    _self._unknown_fields = b''"]), names)
    return names["__init__"]


default_message_pool = Pool()
