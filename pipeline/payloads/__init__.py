"""What devices put on the wire, decoded into raw rows: JSON, NDJSON, line protocol, SenML, CloudEvents, Sparkplug B."""
