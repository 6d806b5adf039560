"""Writes src/earmark/_types.py from api/openapi.yaml, and src/earmark/_client.py from _async_client.py. With --check it writes
nothing, and fails if a file would change."""

import keyword
import re
import sys
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]
API = ROOT.parents[1] / "api" / "openapi.yaml"
PACKAGE = ROOT / "src" / "earmark"
WIDTH = 140

# How the asynchronous client becomes the synchronous one, in this order.
TO_SYNC = [
    (r" tools/generate.py makes the synchronous client of this file.", ""),
    (r"asynchronous", "synchronous"),
    (r"StopAsyncIteration", "StopIteration"),
    (r"Async(Iterator|Iterable|Generator)\b", r"\1"),
    (r"AsyncEarmark", "Earmark"),
    (r"httpx.AsyncBaseTransport", "httpx.ASYNCBaseTransport"),  # both clients share the transport
    (r"Async", ""),
    (r"ASYNC", "Async"),
    (r"async (def|with|for) ", r"\1 "),
    (r"\bawait ", ""),
    (r"__aenter__", "__enter__"),
    (r"__aexit__", "__exit__"),
    (r"__aiter__", "__iter__"),
    (r"__anext__", "__next__"),
    (r"\baclose\b", "close"),
    (r"each_item_async", "each_item"),
    (r"import Iterator, Awaitable, Callable, Coroutine", "import Callable, Coroutine, Iterator"),
    (r"Awaitable\[Any\]", "Any"),
    (r"wait_async", "wait_sync"),
    (r"next_async", "next_sync"),
    (r"open_async", "open_sync"),
    (r"close_async", "close_sync"),
]


def client() -> str:
    text = (PACKAGE / "_async_client.py").read_text()
    for pattern, replacement in TO_SYNC:
        text = re.sub(pattern, replacement, text)
    return "# Made of _async_client.py by tools/generate.py; change that file.\n" + text


def types() -> str:
    document = yaml.safe_load(API.read_text())
    schemas: dict[str, dict[str, Any]] = document["components"]["schemas"]
    parts = [
        '"""The types of the API. Made of api/openapi.yaml by tools/generate.py."""',
        "from typing import Any, Literal, TypedDict",
    ]
    written: set[str] = set()

    def write(name: str) -> None:
        if name in written:
            return
        written.add(name)
        for wanted in references(schemas[name]):
            write(wanted)
        parts.append(definition(name, schemas[name]))

    for name in sorted(schemas):
        write(name)
    codes = schemas["Problem"]["properties"]["code"]
    parts.append(definition("ErrorCode", codes))
    names = sorted([*written, "ErrorCode"])
    parts.append("__all__ = [\n" + "".join(f'    "{name}",\n' for name in names) + "]")
    return "\n\n".join(parts) + "\n"


def references(schema: Any) -> list[str]:
    if isinstance(schema, dict):
        found = [schema["$ref"].rsplit("/", 1)[1]] if "$ref" in schema else []
        return found + [name for part in schema.values() for name in references(part)]
    if isinstance(schema, list):
        return [name for part in schema for name in references(part)]
    return []


def definition(name: str, schema: dict[str, Any]) -> str:
    """A class for an object with named properties, else an alias. Nested objects get classes of their own before it."""
    about = comment(schema.get("description", ""), "")
    if "properties" not in schema:
        text, nested = type_of(schema, name)
        return "\n\n\n".join([*nested, f"{about}{name} = {text}"])
    before: list[str] = []
    required: list[str] = []
    optional: list[str] = []
    words: list[str] = []
    for field, part in schema["properties"].items():
        text, nested = type_of(part, name + "".join(word.capitalize() for word in field.split("_")))
        before += nested
        if keyword.iskeyword(field):  # such as from, which a class cannot name
            words.append(f'"{field}": {text}')
            continue
        line = comment(part.get("description", ""), "    ") + f"    {field}: {text}"
        (required if field in schema.get("required", []) else optional).append(line)
    if not optional and not words:
        return "\n\n\n".join([*before, f"{about}class {name}(TypedDict):\n" + "\n".join(required)])
    base = "TypedDict"
    if words:
        base = f"_{name}Words"
        before.append(f'{base} = TypedDict("{base}", {{{", ".join(words)}}}, total=False)')
    if required:
        above, base = base, f"_{name}"
        before.append(f"class {base}({above}):\n" + "\n".join(required))
    return "\n\n\n".join([*before, f"{about}class {name}({base}, total=False):\n" + "\n".join(optional or ["    pass"])])


def type_of(schema: dict[str, Any], name: str) -> tuple[str, list[str]]:
    """The type of a schema, and the classes that it needs; name is for a nested object."""
    if "$ref" in schema:
        return schema["$ref"].rsplit("/", 1)[1], []
    if "allOf" in schema and len(schema["allOf"]) == 1:
        text, before = type_of(schema["allOf"][0], name)
    elif "oneOf" in schema or "anyOf" in schema:
        made = [type_of(part, f"{name}{i}") for i, part in enumerate(schema.get("oneOf") or schema["anyOf"])]
        text, before = " | ".join(text for text, _ in made), [nested for _, needed in made for nested in needed]
    elif "enum" in schema:
        text, before = "Literal[" + ", ".join(repr(value).replace("'", '"') for value in schema["enum"] if value is not None) + "]", []
    elif "properties" in schema:
        text, before = name, [definition(name, schema)]
    elif schema.get("type") == "array":
        item, before = type_of(schema["items"], name)
        text = f"list[{item}]"
    elif isinstance(schema.get("additionalProperties"), dict):
        value, before = type_of(schema["additionalProperties"], name)
        text = f"dict[str, {value}]"
    else:
        text, before = {"string": "str", "integer": "int", "number": "float", "boolean": "bool", "object": "dict[str, Any]"}.get(
            schema.get("type", ""), "Any"
        ), []
    return (f"{text} | None" if schema.get("nullable") else text), before


def comment(text: str, indent: str) -> str:
    lines: list[str] = []
    for word in text.split():
        if lines and len(indent) + len(lines[-1]) + len(word) + 3 <= WIDTH:
            lines[-1] += " " + word
        else:
            lines.append(word)
    return "".join(f"{indent}# {line}\n" for line in lines)


def main() -> int:
    stale = []
    for name, text in {"_types.py": types(), "_client.py": client()}.items():
        path = PACKAGE / name
        if path.exists() and path.read_text() == text:
            continue
        if "--check" in sys.argv[1:]:
            stale.append(name)
        else:
            path.write_text(text)
    if stale:
        print(f"out of date: {', '.join(stale)}; run python tools/generate.py", file=sys.stderr)
    return len(stale) > 0


if __name__ == "__main__":
    sys.exit(main())
