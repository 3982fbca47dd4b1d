"""C functions for processors that multiply bfloat16, compiled by the machine's own compiler; torch serves elsewhere."""
