"""The operator's console: pages of the fleet that the cloud serves. They show figures, never a site's picture."""
