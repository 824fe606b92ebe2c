"""What programs read of hptune: the documents of --json."""

from __future__ import annotations

from hptune.cli.schema_parts import listed
from hptune.cli.schemas import DOCUMENTS


def json() -> str:
    """Every key of every document, from the schemas that the tests hold the program to."""
    lines = [
        "With --json a command prints one JSON document on standard output, everything else on standard error; where it fails, none.",
        "Keys are stable: they are removed or renamed only with a new major version, and new ones may come with any.",
        "In the lists, [] stands for each of an array, NAME for any key; null is what is not known, or no finite number.",
        "hptune explain json --json prints the same as JSON schemas; hptune check --schema that of a config.",
    ]
    for commands, schema in DOCUMENTS.values():
        lines += ["", f"hptune {commands}: {schema['description']}"]
        lines += [f"  {path}: {kind}; {says}" for path, kind, says in listed(schema)]
    return "\n".join(lines)
