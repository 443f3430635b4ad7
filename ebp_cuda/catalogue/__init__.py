"""Published weights: `fetch` brings a network of `ebp_cuda.models`, by `download`."""
