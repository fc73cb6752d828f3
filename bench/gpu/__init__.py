"""What a GPU makes of the autoencoders. See __main__."""
