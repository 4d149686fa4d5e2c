"""Storage on disk: content-addressed blobs, safetensors weights and files that are written whole or not at all."""
