"""Trust: a small certificate authority, identities, credentials and signatures."""
