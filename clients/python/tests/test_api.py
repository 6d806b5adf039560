"""Compares both clients with api/openapi.yaml."""

import inspect
import keyword
import re
from typing import Any

import generate
import pytest
import yaml

from earmark import AsyncEarmark, Earmark

# What has no method: Prometheus reads one, and the others are for Temporal's UI and for the document's readers.
WITHOUT = {"metrics", "decodePayloads", "allowDecoding", "document"}
DOCUMENT: dict[str, Any] = yaml.safe_load(generate.API.read_text())


def operations() -> dict[str, dict[str, Any]]:
    return {
        operation["operationId"]: operation
        for path in DOCUMENT["paths"].values()
        for operation in path.values()
        if isinstance(operation, dict) and "operationId" in operation
    }


def snake(name: str) -> str:
    return re.sub(r"([A-Z])", lambda match: "_" + match[1].lower(), name)


@pytest.mark.parametrize("kind", [Earmark, AsyncEarmark])
def test_every_call_has_a_method_with_every_filter(kind: type) -> None:
    found = operations()
    assert len(found) > 20
    missing = []
    for name, operation in found.items():
        method = getattr(kind, snake(name), None)
        if name in WITHOUT:
            continue
        if method is None:
            missing.append(snake(name))
            continue
        for parameter in operation.get("parameters", []):
            if "$ref" in parameter:
                parameter = DOCUMENT["components"]["parameters"][parameter["$ref"].rsplit("/", 1)[1]]
            argument = parameter["name"] + "_" * keyword.iskeyword(parameter["name"])
            if parameter["in"] == "query" and argument not in inspect.signature(method).parameters:
                missing.append(f"{snake(name)}({parameter['name']})")
    assert missing == []


def test_what_is_generated_is_fresh() -> None:
    for name, text in {"_types.py": generate.types(), "_client.py": generate.client()}.items():
        assert (generate.PACKAGE / name).read_text() == text, f"{name} is out of date; run python tools/generate.py"
