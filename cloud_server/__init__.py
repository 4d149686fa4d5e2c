"""The manufacturer's service: registry, cycles, gate, releases and fleet. It never dials out."""
