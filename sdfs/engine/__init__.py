"""The process that holds the model: `client` in the owner, `service` in the child, `protocol` between them."""
