"""What a node hands on beside gRPC: MQTT, and a small web server. All of it is off by default."""
