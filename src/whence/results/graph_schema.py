"""What the JSON of a graph must look like: a JSON schema, and a checker that understands the part of it used here.

`problems` also checks what no schema can say: that ids are unique and that links join nodes. Cost: one look at each
value. It knows nothing of whence's own graphs, so that it can judge what they are written as.
"""

from typing import Any

_TEXT, _WHOLE, _NUMBER = {"type": "string"}, {"type": "integer"}, {"type": "number"}
_FEATURE_TYPES = [
    *("cross layer transcoder", "mlp reconstruction error", "embedding", "logit", "bias", "lorsa", "lorsa error")
]
_NODE = {
    "type": "object",
    "required": ["node_id", "feature", "layer", "ctx_idx", "feature_type", "jsNodeId", "clerp"],
    "properties": {
        "node_id": _TEXT,
        "feature": {"type": ["integer", "null"]},
        "layer": _TEXT,
        "ctx_idx": {"type": "integer", "minimum": 0},
        "feature_type": {"enum": _FEATURE_TYPES},
        "token_prob": {"type": "number"},
        "is_target_logit": {"type": "boolean"},
        "run_idx": _WHOLE,
        "reverse_ctx_idx": _WHOLE,
        "jsNodeId": _TEXT,
        "clerp": _TEXT,
        "influence": {"type": ["number", "null"], "minimum": 0},
        "activation": {"type": ["number", "null"]},
    },
}
SCHEMA: dict[str, Any] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "required": ["metadata", "qParams", "nodes", "links"],
    "properties": {
        "metadata": {
            "type": "object",
            "required": ["slug", "scan", "prompt_tokens", "prompt"],
            "properties": {
                "slug": _TEXT,
                "scan": _TEXT,
                "transcoder_list": {"type": "array", "items": _TEXT},
                "prompt_tokens": {"type": "array", "items": _TEXT},
                "prompt": _TEXT,
                "node_threshold": {"type": ["number", "null"], "minimum": 0},
                "schema_version": {"enum": [1]},
                "info": {"type": "object"},
            },
        },
        "qParams": {
            "type": "object",
            "properties": {
                "pinnedIds": {"type": "array", "items": _TEXT},
                "supernodes": {"type": "array", "items": {"type": "array", "items": _TEXT}},
                "linkType": {"enum": ["both", "input", "output", "either"]},
                "clickedId": {"type": ["string", "null"]},
                "sg_pos": {"type": ["string", "null"]},
            },
        },
        "nodes": {"type": "array", "items": _NODE},
        "links": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["source", "target", "weight"],
                "properties": {"source": _TEXT, "target": _TEXT, "weight": _NUMBER},
            },
        },
    },
}
_TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "null": (type(None),),
}


def problems(document: Any) -> list[str]:
    """Everything that is wrong with a document, each with its place; nothing for a good one.

    Args:
        document: The parsed JSON.

    Example:
        >>> problems({"metadata": {}, "qParams": {}, "nodes": [], "links": []})[0]
        "metadata: lacks 'slug'"
    """
    found = _against(document, SCHEMA, "")
    return found or _names(document)


def _against(value: Any, schema: dict[str, Any], place: str) -> list[str]:
    wanted = schema.get("type", [])
    wanted = [wanted] if isinstance(wanted, str) else wanted
    if wanted and not any(_is(value, name) for name in wanted):
        return [f"{place or 'document'}: {value!r:.60} is not {' or '.join(wanted)}"]
    if "enum" in schema and value not in schema["enum"]:
        return [f"{place}: {value!r:.60} is none of {schema['enum']}"]
    if "minimum" in schema and value is not None and value < schema["minimum"]:
        return [f"{place}: {value!r} is less than {schema['minimum']}"]
    fields: dict[str, Any] = value if isinstance(value, dict) else {}
    found = [f"{place or 'document'}: lacks {name!r}" for name in schema.get("required", []) if name not in fields]
    for name, inner in schema.get("properties", {}).items():
        if name in fields:
            found += _against(fields[name], inner, f"{place}.{name}".lstrip("."))
    if isinstance(value, list) and "items" in schema:
        for number, entry in enumerate(value):
            found += _against(entry, schema["items"], f"{place}[{number}]")
    return found


def _is(value: Any, name: str) -> bool:
    if isinstance(value, bool):  # which Python counts as a number, and JSON does not
        return name == "boolean"
    return isinstance(value, _TYPES[name])


def _names(document: dict[str, Any]) -> list[str]:
    ids = [node["node_id"] for node in document["nodes"]]
    known = set(ids)
    twice = sorted({name for name in known if ids.count(name) > 1}) if len(known) < len(ids) else []
    found = [f"nodes: {name!r} names more than one" for name in twice]
    for number, link in enumerate(document["links"]):
        found += [
            f"links[{number}].{end}: no node {link[end]!r}" for end in ("source", "target") if link[end] not in known
        ]
    return found
