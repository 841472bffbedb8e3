"""Regular expressions for plain JSON: what matches them is JSON, and Polars reads it as Python does.

No escapes, no arrays, and numbers of at most 17 digits on each side of the point. Other messages may still be valid JSON; they are parsed
one at a time. Called by the decoders that read many messages at once.
"""

BLANKS = r"[ \t\n\r]*"
TEXT = r'"[^"\\\x00-\x1f]*"'
NUMBER = r"-?(?:0|[1-9][0-9]{0,16})(?:\.[0-9]{1,17})?(?:[eE][+-]?[0-9]{1,2})?"
SCALAR = rf"(?:{TEXT}|{NUMBER}|true|false|null)"
