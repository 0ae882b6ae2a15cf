"""Types of Arrow: what values are, whatever their encoding."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow as pa

# of columns that are likely to hold images; those from 'path' on, paths
NAMES = ('image', 'img', 'jpg', 'png', 'bytes', 'path', 'file_name', 'filename', 'file', 'image_path', 'url')


def plain_type(kind: pa.DataType) -> pa.DataType:
    """The type of the same values without encodings, such as views, categories and extensions."""
    import pyarrow as pa
    import pyarrow.types as types

    if isinstance(kind, pa.BaseExtensionType):
        return plain_type(kind.storage_type)
    if types.is_dictionary(kind) or types.is_run_end_encoded(kind):
        return plain_type(kind.value_type)
    if types.is_struct(kind):
        return pa.struct([field.with_type(plain_type(field.type)) for field in kind])
    text, data, number = pa.string(), pa.binary(), pa.float32()
    others = {'large_string': text, 'string_view': text, 'binary_view': data, 'halffloat': number}
    return others.get(str(kind), kind)  # by name: pyarrow 15 has none for views


def plain_column(column: pa.Array) -> pa.Array:
    """A column, or a chunked one, without extension types, whose cells may be anything in Python."""
    import pyarrow as pa

    if 'extension<' not in str(column.type):
        return column
    try:
        return column.cast(plain_type(column.type))
    except pa.ArrowNotImplementedError:  # with run-end encoding, for one
        return column


def is_text(kind: pa.DataType) -> bool:
    """Whether the values of a type are text."""
    return str(plain_type(kind)) == 'string'


def image_column(schema: pa.Schema, column: str | None = None) -> str:
    """Name of the column that holds images: bytes, {bytes, path}, or paths.

    Args:
        schema: schema of a table
        column: name of the column, which is checked; None: found by type and name

    Raises:
        ValueError: there is no such column
    """
    if column is not None and column not in schema.names:
        raise ValueError(f'no column {column!r}; expected one of {", ".join(schema.names)}')
    known = {field.name: plain_type(field.type) for field in schema if column in (None, field.name)}
    images = [name for name, kind in known.items() if _holds_images(kind)]
    texts = [name for name, kind in known.items() if is_text(kind)]
    if column is not None:
        if not images and not texts:
            raise ValueError(
                f'column {column!r} is {schema.field(column).type}; expected paths, bytes or {{bytes, path}}'
            )
        return column
    # bytes all of one length are digests rather than images
    unnamed = [name for name in images if not str(known[name]).startswith('fixed_size_binary')]
    likely = [name for name in NAMES if name in images] or (unnamed if len(unnamed) == 1 else [])
    likely += [name for name in NAMES if name in texts]
    if not likely:
        raise ValueError(
            f'no column of images found among {", ".join(known)}; expected bytes, {{bytes, path}}, or paths '
            f'in a column named {" or ".join(NAMES[5:])}. Name it with --column'
        )
    return likely[0]


def _holds_images(kind: pa.DataType) -> bool:
    """Whether a plain type is bytes, or {bytes, path}."""
    import pyarrow.types as types

    if types.is_struct(kind):
        kinds = [field.type for field in kind if field.name == 'bytes']
        return any(types.is_null(each) or _holds_images(each) for each in kinds)
    return types.is_binary(kind) or types.is_large_binary(kind) or types.is_fixed_size_binary(kind)
