"""Where records go; each sink follows `jaynes_callbacks.sinks.base.Sink` and knows no source."""
