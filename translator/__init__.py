"""From the objects that users write to the messages that Envoy reads."""
