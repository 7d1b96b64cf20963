"""The schemas of conditions and ancestors in the status of xdserve's own kinds, as Gateway API has them."""

from __future__ import annotations

from typing import Any

CONDITIONS: dict[str, Any] = {
    "description": "What xdserve says of it.",
    "type": "array",
    "maxItems": 8,
    "x-kubernetes-list-type": "map",
    "x-kubernetes-list-map-keys": ["type"],
    "items": {
        "type": "object",
        "required": ["lastTransitionTime", "message", "reason", "status", "type"],
        "properties": {
            "lastTransitionTime": {"type": "string", "format": "date-time"},
            "message": {"type": "string", "maxLength": 32768},
            "observedGeneration": {"type": "integer", "format": "int64", "minimum": 0},
            "reason": {
                "type": "string",
                "minLength": 1,
                "maxLength": 1024,
                "pattern": "^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$",
            },
            "status": {"type": "string", "enum": ["True", "False", "Unknown"]},
            "type": {
                "type": "string",
                "maxLength": 316,
                "pattern": r"^([a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*/)?"
                r"(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])$",
            },
        },
    },
}
# Gateway API's PolicyStatus, but that nothing is a Gateway by default: a policy's ancestor is its target.
ANCESTORS: dict[str, Any] = {
    "description": "One entry for each target and each controller that has taken it up, as in Gateway API.",
    "type": "array",
    "maxItems": 16,
    "x-kubernetes-list-type": "atomic",
    "items": {
        "type": "object",
        "required": ["ancestorRef", "conditions", "controllerName"],
        "properties": {
            "ancestorRef": {
                "type": "object",
                "required": ["name"],
                "properties": {
                    "group": {
                        "type": "string",
                        "maxLength": 253,
                        "pattern": r"^$|^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$",
                    },
                    "kind": {
                        "type": "string",
                        "minLength": 1,
                        "maxLength": 63,
                        "pattern": "^[a-zA-Z]([-a-zA-Z0-9]*[a-zA-Z0-9])?$",
                    },
                    "namespace": {
                        "type": "string",
                        "minLength": 1,
                        "maxLength": 63,
                        "pattern": "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$",
                    },
                    "name": {"type": "string", "minLength": 1, "maxLength": 253},
                    "sectionName": {"type": "string", "minLength": 1, "maxLength": 253},
                    "port": {"type": "integer", "format": "int32", "minimum": 1, "maximum": 65535},
                },
            },
            "controllerName": {
                "type": "string",
                "minLength": 1,
                "maxLength": 253,
                "pattern": r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*\/"
                r"[A-Za-z0-9\/\-._~%!$&'()*+,;=:]+$",
            },
            "conditions": {**CONDITIONS, "minItems": 1},
        },
    },
}
