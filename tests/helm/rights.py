"""The tables of docs/rbac.md, from the roles that the chart makes: `python -m tests.helm.rights` writes them again."""

from __future__ import annotations

import re
from pathlib import Path

from tests.support import chart

DOCUMENT = Path(__file__).parents[2] / "docs/rbac.md"
PART = re.compile(r"(<!-- made by tests/helm/rights\.py: (?P<role>[^\n]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def written(text):
    """The text with its tables as they should be; a role without a table, or the other way round, is a KeyError."""
    roles = chart.roles()
    named = [match["role"] for match in PART.finditer(text)]
    if sorted(named) != sorted(roles):
        raise KeyError(f"roles {sorted(roles)}, tables {sorted(named)}")
    return PART.sub(lambda match: f"{match[1]}{table(roles[match['role']])}{match[3]}", text)


def table(rules):
    """One row a rule."""
    rows = [("group", "resources", "verbs", "why"), ("---",) * 4]
    for rule, why in rules:
        named = [f"`{name}` alone" for name in rule.get("resourceNames", ())]
        groups = code(group or "core" for group in rule["apiGroups"])
        rows.append((groups, ", ".join([code(rule["resources"]), *named]), code(rule["verbs"]), why))
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def code(words):
    return " ".join(f"`{word}`" for word in words)


if __name__ == "__main__":
    DOCUMENT.write_text(written(DOCUMENT.read_text()))
