"""The site's service: holds the private data set, works out the knowledge gap, and lets nothing else leave."""
