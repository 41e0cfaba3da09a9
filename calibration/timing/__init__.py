"""Time between sensors: by how much their stamps differ, told from the motion that all of them saw."""
