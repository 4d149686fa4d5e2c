"""An app of Flower's deployment engine."""
