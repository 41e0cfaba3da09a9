"""What a sensor's values are worth: depth in true metres, a thermal camera's counts in kelvin, even pixels."""
