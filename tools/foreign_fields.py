"""Write the names of the fields of a definition (CRD) of KServe or KubeDL, at the levels that xdserve reads.

    tools/foreign_fields.py serving.kserve.io_inferenceservices.yaml "KServe 0.20" > tests/.../kserve.json

A test compares the names with `translator/objects/foreign_fields.py`: for a new version of a project, write the file
again from its definition, and decide for each field that the test names.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from translator.objects.foreign_fields import INFERENCE, INFERENCE_SERVICE, Level

LEVELS = {"InferenceService": INFERENCE_SERVICE, "Inference": INFERENCE}


def fields(definition: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """The type of each field by level and name."""
    versions = definition["spec"]["versions"]
    schema = next(version for version in versions if version["storage"])["schema"]["openAPIV3Schema"]
    return {level.path: types(schema, level) for level in LEVELS[definition["spec"]["names"]["kind"]]}


def types(schema: Mapping[str, Any], level: Level) -> dict[str, str]:
    """The type of each field of a level."""
    for step in level.path.split("."):
        schema = schema["properties"][step.removesuffix("[]")]
        schema = schema["items"] if step.endswith("[]") else schema
    if schema.get("x-kubernetes-preserve-unknown-fields"):
        raise SystemExit(f"{level.path} is not closed: any name may be a field there")
    return {name: field.get("type", "any") for name, field in sorted(schema["properties"].items())}


def main() -> None:
    """Write the names to standard output."""
    parser = argparse.ArgumentParser(description="Write the names of the fields of a definition of KServe or KubeDL.")
    parser.add_argument("definition", type=Path, help="the CustomResourceDefinition, as YAML")
    parser.add_argument("version", help="which version of the project it is of")
    given = parser.parse_args()
    definition = yaml.load(given.definition.read_bytes(), Loader=yaml.CSafeLoader)
    json.dump({"version": given.version, "levels": fields(definition)}, sys.stdout, indent=1)
    print()


if __name__ == "__main__":
    main()
