"""Photos in (`preprocess`), pictures of maps out (`maps`)."""
