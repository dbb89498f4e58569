#!/usr/bin/env python3
"""Dumps JSON Schemas of the `openai` package's own types, as the tests check requests and mock answers against them.

    python3 -m venv VENV && VENV/bin/pip install openai==3.54.0
    VENV/bin/python xtask/suites/schemas.py crates/cofferdam-model-openai/tests/schema

Writes one compact file per type, with sorted keys, so that a new version of the package shows as a readable diff.
`--check` compares instead, and fails if a file differs.
"""
import argparse
import json
import pathlib
import sys
import warnings

import openai
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.chat.completion_create_params import CompletionCreateParamsBase
from openai.types.responses import Response, ResponseInputItem, ResponseStreamEvent
from openai.types.responses.response_create_params import ResponseCreateParamsBase
from pydantic import TypeAdapter

PINNED = "3.54.0"
TYPES = {
    "ChatCompletion": ChatCompletion,
    "ChatCompletionChunk": ChatCompletionChunk,
    "ChatCompletionCreateParams": CompletionCreateParamsBase,
    "Response": Response,
    "ResponseCreateParams": ResponseCreateParamsBase,
    "ResponseInputItem": ResponseInputItem,
    "ResponseStreamEvent": ResponseStreamEvent,
}


def without_prose(schema):
    """Drops descriptions and titles: they say nothing to a validator and are two thirds of the bytes."""
    if isinstance(schema, list):
        return [without_prose(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    kept = {}
    for key, value in schema.items():
        if key in ("description", "title") and isinstance(value, str):
            continue
        # Below these, keys are names of fields or types, of which some are called "title" or "description".
        if key in ("properties", "$defs") and isinstance(value, dict):
            kept[key] = {name: without_prose(part) for name, part in value.items()}
        else:
            kept[key] = without_prose(value)
    return kept


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("directory", type=pathlib.Path)
    parser.add_argument("--check", action="store_true", help="compare with the files instead of writing them")
    options = parser.parse_args()
    if openai.__version__ != PINNED:
        print(f"needs openai {PINNED}, found {openai.__version__}", file=sys.stderr)
        return 2
    # Some of the package's types use field names that pydantic warns of; the schema is not affected.
    warnings.filterwarnings("ignore")
    differing = []
    for name, kind in TYPES.items():
        schema = without_prose(TypeAdapter(kind).json_schema(mode="validation"))
        text = json.dumps(schema, separators=(",", ":"), sort_keys=True) + "\n"
        path = options.directory / f"{name}.json"
        if not options.check:
            path.write_text(text)
        elif not path.exists() or path.read_text() != text:
            differing.append(path.name)
    if differing:
        print(f"differs from openai {PINNED}: {', '.join(differing)}; run without --check", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
