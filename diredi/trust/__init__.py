"""Who is who: a small certificate authority, identities, and the credentials of a service."""
