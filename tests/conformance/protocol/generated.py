"""Hypothesis strategies: messages out of the schemas, and structs out of their types."""

from typing import Any

import msgspec
from hypothesis import reject
from hypothesis import strategies as st
from msgspec import UNSET, Raw, inspect

from tests.conformance.protocol.corpus import is_accepted_by_schema, registry, schemas

_characters = st.characters(exclude_categories=["Cs"])
texts = st.text(_characters, max_size=12)
json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)
payloads = json_values.map(lambda value: Raw(msgspec.json.encode(value)))

_INVENTED_KEYS = st.sampled_from(["", "future", "x-y", "ключ"])


def messages_of_schema(message: str) -> st.SearchStrategy[Any]:
    """Whatever the schema accepts, keys that it does not know included."""
    schema = schemas()[message]
    drawn = _instances(schema, registry().resolver(schema["$id"]))
    # The generator passes over rules between keys (`if`, `then`); the validator does not.
    return drawn.filter(lambda value: is_accepted_by_schema(message, value))


def _instances(schema: Any, resolver: Any) -> st.SearchStrategy[Any]:
    match schema:
        case {"$ref": ref}:
            target = resolver.lookup(ref)
            return _instances(target.contents, target.resolver)
        case {"oneOf": branches} | {"anyOf": branches}:
            return st.one_of([_instances(branch, resolver) for branch in branches])
        case {"const": value}:
            return st.just(value)
        case {"enum": values}:
            return st.sampled_from(values)
        case {"type": list(types)}:
            return st.one_of([_instances({**schema, "type": one}, resolver) for one in types])
        case {"type": "object"}:
            return _objects(schema, resolver)
        case {"prefixItems": items, "items": False, "minItems": least}:
            assert len(items) == least
            return st.tuples(*(_instances(item, resolver) for item in items)).map(list)
        case {"type": "array", "items": item}:
            return st.lists(_instances(item, resolver), max_size=3)
        case {"type": _}:
            return _plain_instances(schema)
        case _:
            return json_values


def _objects(schema: Any, resolver: Any) -> st.SearchStrategy[Any]:
    known = {k: _instances(v, resolver) for k, v in schema.get("properties", {}).items()}
    required = set(schema.get("required", ()))
    return st.builds(
        lambda stated, invented: {**invented, **stated},
        st.fixed_dictionaries(
            {key: known[key] for key in known if key in required},
            optional={key: known[key] for key in known if key not in required},
        ),
        st.dictionaries(_INVENTED_KEYS, json_values, max_size=1),
    )


def _plain_instances(schema: Any) -> st.SearchStrategy[Any]:
    low, high = schema.get("minimum"), schema.get("maximum")
    match schema:
        case {"type": "null"}:
            return st.none()
        case {"type": "boolean"}:
            return st.booleans()
        case {"type": "integer"}:
            return st.integers(low, high)
        case {"type": "number"}:
            return st.floats(low, high, allow_nan=False, allow_infinity=False) | st.integers(
                -(2**53) if low is None else low, 2**53 if high is None else high
            )
        case {"type": "string", "pattern": pattern, "maxLength": longest}:
            return _matching(pattern, longest)
        case {"type": "string"}:
            return st.text(_characters, min_size=schema.get("minLength", 0), max_size=12)
        case _:
            raise NotImplementedError(f"no strategy for {schema}")


def _matching(pattern: str, longest: int | None) -> st.SearchStrategy[str]:
    # In Python `$` also matches before a final newline.
    texts_of = st.from_regex(pattern, fullmatch=True)
    return texts_of.filter(lambda text: longest is None or len(text) <= longest)


def structs_of(wanted: Any) -> st.SearchStrategy[Any]:
    return _values(inspect.type_info(wanted))


def _values(kind: inspect.Type) -> st.SearchStrategy[Any]:
    match kind:
        case inspect.StructType():
            return _structs(kind)
        case inspect.UnionType(types=types):
            return st.one_of([_values(branch) for branch in types])
        case inspect.ListType(item_type=item):
            return st.lists(_values(item), max_size=3)
        case inspect.TupleType(item_types=items):
            return st.tuples(*(_values(item) for item in items))
        case inspect.DictType(value_type=value):
            return st.dictionaries(texts, _values(value), max_size=3)
        case inspect.EnumType(cls=cls):
            return st.sampled_from(list(cls))
        case _:
            return _scalars(kind)


def _scalars(kind: inspect.Type) -> st.SearchStrategy[Any]:
    match kind:
        case inspect.RawType():
            return payloads
        case inspect.AnyType():
            return json_values
        case inspect.NoneType():
            return st.none()
        case inspect.BoolType():
            return st.booleans()
        case inspect.LiteralType(values=values):
            return st.sampled_from(values)
        case inspect.IntType(ge=low, le=high):
            return st.integers(low, high)
        case inspect.FloatType(ge=low, le=high):
            return st.floats(low, high, allow_nan=False, allow_infinity=False)
        case inspect.StrType(pattern=str(pattern), max_length=longest):
            return _matching(pattern, longest)
        case inspect.StrType(min_length=shortest):
            return st.text(_characters, min_size=shortest or 0, max_size=12)
        case _:
            raise NotImplementedError(f"no strategy for {kind}")


@st.composite
def _structs(draw: st.DrawFn, kind: inspect.StructType) -> Any:
    fields = {field.name: draw(_field_values(field)) for field in kind.fields}
    try:
        return kind.cls(**fields)
    except ValueError:  # a rule between fields
        reject()


def _field_values(field: inspect.Field) -> st.SearchStrategy[Any]:
    if field.default is UNSET:
        return st.just(UNSET) | _values(field.type)
    return _values(field.type)
