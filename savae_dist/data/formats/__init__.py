"""The bytes of one file: tars, arrays and images."""
