"""The watched folder: pictures that land there move into a store."""
