"""The stream, level one: raw messages over a connection that keeps itself up."""
