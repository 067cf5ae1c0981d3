"""Where this library meets other tools. Nothing in here is imported unless its tool is there."""
