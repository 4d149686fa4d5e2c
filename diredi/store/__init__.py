"""What rests on disk: content-addressed blobs and safetensors weights."""
