"""The OpenAPI description of the service: routes written by hand, JSON schemas from the models of ``answers``."""

from typing import Any

from pydantic.json_schema import models_json_schema

import cxrlit
from cxrlit.core.notice import RESEARCH_USE
from cxrlit.handoff.demo.answers import Answer, Health, Refusal
from cxrlit.handoff.demo.intake import CONTENT_TYPES

REFUSALS = {
    400: "A query parameter is not understood",
    403: "The request names another host, or comes from a page of another address",
    408: "The file did not come whole in time",
    413: "The file is too large",
    415: "The body is not declared as a file",
    422: "The file cannot be used: no PNG, JPEG or DICOM image, damaged, or of a kind that is not supported",
    500: "The model's network computes no finite numbers",
    503: "Too many files wait; try again",
}


def describe_service() -> dict[str, Any]:
    """Make the OpenAPI 3.1 description."""
    _, schemas = models_json_schema(
        [(model, "serialization") for model in (Answer, Health, Refusal)],
        ref_template="#/components/schemas/{model}",
    )
    pictures = {
        "name": "pictures",
        "in": "query",
        "description": "Whether the answer has the image and the heatmaps.",
        "schema": {"type": "boolean", "default": True},
    }
    file = {"schema": {"type": "string", "format": "binary"}}
    return {
        "openapi": "3.1.0",
        "info": {"title": "cxrlit", "version": cxrlit.__version__, "description": RESEARCH_USE},
        "paths": {
            "/predict": {
                "post": {
                    "operationId": "predict",
                    "summary": "Predict one radiograph",
                    "description": "The file is kept in memory alone, until it is answered.",
                    "parameters": [pictures],
                    "requestBody": {
                        "description": "A PNG, JPEG or DICOM file as it is.",
                        "required": True,
                        "content": dict.fromkeys(CONTENT_TYPES, file),
                    },
                    "responses": {"200": _describe_json("The prediction", Answer)}
                    | {str(code): _describe_json(text, Refusal) for code, text in REFUSALS.items()},
                }
            },
            "/health": {
                "get": {
                    "operationId": "health",
                    "summary": "Whether the service answers, and with which model",
                    "responses": {"200": _describe_json("It does", Health)},
                }
            },
        },
        "components": {"schemas": schemas["$defs"]},
    }


def _describe_json(text: str, model: type) -> dict[str, Any]:
    schema = {"$ref": f"#/components/schemas/{model.__name__}"}
    return {"description": text, "content": {"application/json": {"schema": schema}}}
