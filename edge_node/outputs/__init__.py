"""What a node hands on beside gRPC: MQTT, a webhook, files, and a small web server. All of it is off by default."""
