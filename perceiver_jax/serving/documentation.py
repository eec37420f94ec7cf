"""How requests look: what OpenAPI says of them, and a page of it that loads nothing else."""

from collections.abc import Iterator
import html
import json
from typing import Any

from perceiver_jax.serving import bodies

Json = dict[str, Any]

_FILE = {"type": "string", "format": "binary"}
_BASE64 = {
    "type": "object",
    "properties": {"base64": {"type": "string", "format": "byte"}},
    "required": ["base64"],
    "description": "the contents of a file",
}
_NUMBERS = {"type": "array", "items": {}, "description": "numbers, nested as the array is"}
_PROBLEM = {
    "type": "object",
    "properties": {"detail": {"type": "string"}},
    "required": ["detail"],
}
_ERRORS = {
    400: "It is damaged, or its client went away.",
    403: "It is for another host, or of a page of another site; see `--hosts`.",
    408: "The request did not come in time.",
    413: "It is too large.",
    415: "It is neither a form nor JSON.",
    422: "It can't be read; `detail` says what to change.",
    500: "The server failed, by a bug.",
    503: "The server is warming up, busy or ending; ask again after `Retry-After` seconds.",
}
_STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:50rem;margin:2rem auto;padding:0 1rem}"
    "pre{background:#f2f2f2;padding:.75rem;overflow-x:auto}"
    "th,td{text-align:left;padding:0 1rem 0 0;vertical-align:top}"
)
# The style is in the page itself.
POLICY = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"


def body(described: Json) -> Json:
    """Returns what OpenAPI says of the body of a request.

    Args:
        described: what `about.describe` returned.
    """
    names = [given["name"] for given in described["inputs"]]
    parts = {name: {"type": "array", "items": _FILE} for name in names}
    if described["one_file"]:
        parts.setdefault(bodies.FILE, {"type": "array", "items": _FILE})
    values = {given["name"]: _value(given["kind"]) for given in described["inputs"]}
    example = {"type": "object", "properties": values, "additionalProperties": False}
    return {
        "requestBody": {
            "required": True,
            "content": {
                bodies.FORM: {"schema": {"type": "object", "properties": parts}},
                bodies.JSON: {
                    "schema": {
                        "type": "object",
                        "properties": {"examples": {"type": "array", "items": example}},
                        "required": ["examples"],
                    },
                },
            },
        }
    }


def answers(path: str) -> dict[int | str, Json]:
    """Returns what OpenAPI says of answers that are none, to what is posted to a path."""
    none = {404: "This model has no classes of recordings."} if path == "/over_time" else {}
    content = {bodies.JSON: {"schema": _PROBLEM}}
    errors = sorted((_ERRORS | none).items())
    return {status: {"description": text, "content": content} for status, text in errors}


def page(schema: Json) -> str:
    """Returns a page for people of what OpenAPI says."""
    title = html.escape(schema["info"]["title"])
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title>'
        '<meta name="viewport" content="width=device-width">'
        f"<style>{_STYLE}</style><main><h1>{title}</h1>"
        f"<p>{html.escape(schema['info']['description'])} For programs: "
        '<a href="openapi.json">openapi.json</a>.</p>' + "".join(_routes(schema)) + "</main></html>"
    )


def _value(kind: str) -> Json:
    if kind == "text":
        return {"type": "string"}
    if kind == "frames":
        return {"type": "array", "items": _BASE64, "minItems": 2, "maxItems": 2}
    return {"oneOf": [_BASE64, _NUMBERS]}


def _routes(schema: Json) -> Iterator[str]:
    for path, methods in schema["paths"].items():
        for method, route in methods.items():
            yield f"<h2><code>{method.upper()} {html.escape(path)}</code></h2>"
            yield f"<p>{html.escape(route.get('description', ''))}</p>"
            if parameters := route.get("parameters"):
                rows = "".join(map(_parameter, parameters))
                yield f"<table><tr><th>?<th>default<th>what{rows}</table>"
            for kind, content in route.get("requestBody", {}).get("content", {}).items():
                yield f"<h3>{html.escape(kind)}</h3>"
                yield f"<pre>{html.escape(json.dumps(content['schema'], indent=1))}</pre>"
            if "requestBody" in route:
                yield f"<p>Try it: <code>{html.escape(_curl(path, route))}</code></p>"


def _parameter(parameter: Json) -> str:
    schema = parameter["schema"]
    default = html.escape(str(schema.get("default", "")))
    what = " or ".join(schema.get("enum", [])) or schema.get("type", "")
    what = f"{what}: {parameter.get('description', '')}".strip(": ")
    return (
        f"<tr><td><code>{html.escape(parameter['name'])}</code><td>{default}<td>{html.escape(what)}"
    )


def _curl(path: str, route: Json) -> str:
    parts = route["requestBody"]["content"][bodies.FORM]["schema"]["properties"]
    return f"curl -F {next(iter(parts))}=@FILE http://HOST:PORT{path}"
