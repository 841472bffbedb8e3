"""The health of a lake: what is damaged, what that means, and how it is mended without deleting anything."""
