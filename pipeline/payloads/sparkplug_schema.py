"""The messages of Sparkplug B for Google's protobuf, built from the field numbers of the Eclipse specification (3.0, chapter 6.4).

Only what a reading needs: fields that are not declared here are skipped by protobuf. Called by `sparkplug.py` and by tests.
"""

from functools import lru_cache
from typing import Any

# name, number, type; a name with [] is repeated
_METRIC = (
    ("name", 1, "BYTES"),  # bytes, so that what is no UTF-8 does not fail a whole message
    ("alias", 2, "UINT64"),
    ("timestamp", 3, "UINT64"),  # ms
    ("datatype", 4, "UINT32"),
    ("is_historical", 5, "BOOL"),
    ("is_transient", 6, "BOOL"),
    ("is_null", 7, "BOOL"),
    ("properties", 9, "PropertySet"),
    ("int_value", 10, "UINT32"),
    ("long_value", 11, "UINT64"),
    ("float_value", 12, "FLOAT"),
    ("double_value", 13, "DOUBLE"),
    ("boolean_value", 14, "BOOL"),
    ("string_value", 15, "BYTES"),
)
_MESSAGES = {
    "PropertyValue": (("type", 1, "UINT32"), ("is_null", 2, "BOOL"), ("int_value", 3, "UINT32"), ("long_value", 4, "UINT64")),
    "PropertySet": (("keys[]", 1, "BYTES"), ("values[]", 2, "PropertyValue")),
    "Metric": _METRIC,
    "Payload": (("timestamp", 1, "UINT64"), ("metrics[]", 2, "Metric"), ("seq", 3, "UINT64")),
}


@lru_cache(maxsize=1)
def payload_class() -> Any:  # noqa: ANN401 (a class that protobuf makes)
    """Return the message class of a payload; protobuf is imported here, because few need it."""
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    file = descriptor_pb2.FileDescriptorProto(name="tidecast_sparkplug_b.proto", package="tidecast.sparkplug_b", syntax="proto2")
    for message, fields in _MESSAGES.items():
        described = file.message_type.add(name=message)
        for name, number, kind in fields:
            added = described.field.add(name=name.removesuffix("[]"), number=number)
            added.label = added.LABEL_REPEATED if name.endswith("[]") else added.LABEL_OPTIONAL
            if kind in _MESSAGES:
                added.type, added.type_name = added.TYPE_MESSAGE, f".{file.package}.{kind}"
            else:
                added.type = getattr(added, f"TYPE_{kind}")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{file.package}.Payload"))


def parse_payload(payload: bytes) -> Any:  # noqa: ANN401 (a message that protobuf makes)
    """Return the payload; None where the bytes are none."""
    from google.protobuf.message import DecodeError

    try:
        return payload_class().FromString(payload)
    except DecodeError:
        return None
