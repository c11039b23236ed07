"""The only code that touches the Kafka clients; everything else speaks of events."""
