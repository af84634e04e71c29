"""Where records go; each sink follows `jaynes_callbacks.sink.Sink` and knows no source."""
