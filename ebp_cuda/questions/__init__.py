"""What may be asked of a network besides its classes: places of its top, embeddings, seeds, and against what."""
