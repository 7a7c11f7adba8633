"""The wire: messages, names, handshake, bytes to structs. Specification: protocol/README.md."""
