"""The one place that touches gRPC: stubs, servers, channels, streams, blobs over the wire. No switch turns TLS off."""
