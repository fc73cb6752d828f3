"""How far two pictures are apart, the gate that a render has to pass, and what an error may cost in bits.

The engine's process runs it; training and bench do. It imports `codec.autoencoders` and `codec.coding`.
"""
