"""C functions for the operations of a decoding step, for few tokens at a time, and the library that holds them."""
