"""Generated code of the contract lpfileshare.v1: see the comments in proto/lpfileshare/v1."""
