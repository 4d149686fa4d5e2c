"""Update cycles: the service, the rules (transitions), and what drives cycles on (pipeline, reconciler)."""
