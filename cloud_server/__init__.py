"""The manufacturer's service: registry, cycles, gate, releases and fleet. It dials out for alarms alone, if wanted."""
