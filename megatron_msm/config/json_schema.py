"""JSON schemas of the files that a user writes, for editors and for the reference pages.

pydantic makes them of the same models that check a file. What it cannot know is said here: sections
that are checked only when they are put together with others, such as a grid's phases.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from pydantic import BaseModel, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def json_schema(config_type: type[BaseModel]) -> JsonSchemaValue:
    """Return the JSON schema of a file, with each field's text as its description."""
    schema = {"$schema": DIALECT, **config_type.model_json_schema()}
    _unwrap_descriptions(schema)
    return schema


@dataclass(frozen=True)
class SchemaOf:
    """Marks a mapping that holds fields of a model which is checked later.

    It changes the JSON schema alone: `Annotated[dict[str, object], SchemaOf(PhaseConfig)]`.
    """

    model: type[BaseModel]
    without: frozenset[str] = frozenset()
    """Fields that something else sets."""
    optional: frozenset[str] = frozenset()
    """Fields that the model requires and this mapping may leave out."""

    def __get_pydantic_json_schema__(
        self, core_schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        """Return the model's schema with fewer fields."""
        schema = dict(model_schema(self.model, handler))
        schema["properties"] = {
            name: field for name, field in schema["properties"].items() if name not in self.without
        }
        required = schema.pop("required", [])
        needed = [name for name in required if name not in self.without | self.optional]
        return schema | ({"required": needed} if needed else {})


@dataclass(frozen=True)
class SchemaByName:
    """Marks a mapping whose field `key` names the model that its other fields belong to."""

    key: str
    models: Mapping[str, type[BaseModel]]

    def __get_pydantic_json_schema__(
        self, core_schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        """Return one alternative for each name."""
        return {"oneOf": [self._alternative(name, handler) for name in self.models]}

    def _alternative(self, name: str, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        schema = model_schema(self.models[name], handler)
        named = {self.key: {"const": name, "type": "string"}}
        required = [self.key, *schema.get("required", [])]
        properties = named | schema["properties"]
        return dict(schema) | {"title": name, "properties": properties, "required": required}


@dataclass(frozen=True)
class OrPath:
    """Marks a section in whose place a path alone will do."""

    def __get_pydantic_json_schema__(
        self, core_schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        """Return both forms."""
        return {"anyOf": [{"type": "string", "format": "path"}, handler(core_schema)]}


def model_schema(model: type[BaseModel], handler: GetJsonSchemaHandler) -> JsonSchemaValue:
    """Return a model's own schema, its sections as references."""
    return handler.resolve_ref_schema(handler(model.__pydantic_core_schema__))


def _unwrap_descriptions(node: object) -> None:
    """Join the lines of each paragraph: a docstring is wrapped for the source."""
    if isinstance(node, list):
        for element in node:
            _unwrap_descriptions(element)
    elif isinstance(node, dict):
        for key, value in node.items():
            if key == "description" and isinstance(value, str):
                paragraphs = value.split("\n\n")
                node[key] = "\n\n".join(" ".join(text.split()) for text in paragraphs)
            else:
                _unwrap_descriptions(value)
