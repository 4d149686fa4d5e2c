"""Update cycles: commands (one transaction each), the desks of services, and the runner of the cloud's half."""
