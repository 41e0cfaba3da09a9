"""What a sensor's values are worth: true metres, counts in kelvin, even pixels."""
