"""Live sources: MQTT, HTTP, landing folders and Kafka; what they take is on disk before it is acknowledged, then becomes readings."""
