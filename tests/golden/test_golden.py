"""What Envoy gets for each case: golden files, which a real Envoy has accepted.

A case is a folder with an `in.yaml` (and an `options.yaml` for the operator's settings). `make golden` writes the rest.
"""

from __future__ import annotations

import difflib

import pytest

from tests.golden.cases import (
    FINDINGS,
    GENERATED,
    INPUT,
    OPTIONS,
    OUTPUTS,
    ROOT,
    SHOWN_IN,
    cases,
    shortened,
    texts,
    translate_case,
)
from tests.golden.validation import problems


@pytest.mark.parametrize("case", cases())
def test_translation_gives_the_golden_files(case, update_golden):
    gateways, findings = translate_case(case)
    made = texts(gateways if case == SHOWN_IN else shortened(gateways), findings)
    folder = ROOT / case
    if update_golden:
        for file, text in made.items():
            (folder / file).write_text(text)
    differences = "".join(_difference(folder / file, text) for file, text in made.items())
    if differences:
        pytest.fail(f"{differences}\n(make golden writes the files again)", pytrace=False)


def _difference(path, text):
    golden = path.read_text() if path.exists() else ""
    name = f"{path.parent.name}/{path.name}"
    lines = difflib.unified_diff(
        golden.splitlines(keepends=True), text.splitlines(keepends=True), f"{name} (golden)", f"{name} (now)"
    )
    return "".join(lines)


def test_no_file_is_an_orphan():
    known = GENERATED | {INPUT, OPTIONS}
    folders = [path for path in ROOT.iterdir() if path.is_dir() and path.name != "__pycache__"]
    strange = [path for folder in folders for path in folder.iterdir() if path.name not in known]
    assert strange == []
    assert [folder.name for folder in folders if not (folder / INPUT).exists()] == []
    assert [folder.name for folder in folders if not (folder / "in.yaml").read_text().startswith("# ")] == []


def test_every_case_has_all_golden_files():
    missing = [
        f"{case}/{file}"
        for case in cases()
        for file in (*OUTPUTS.values(), FINDINGS)
        if not (ROOT / case / file).exists()
    ]
    assert missing == []


def test_envoy_accepts_every_case():
    assert problems({case: translate_case(case)[0] for case in cases()}) == []
