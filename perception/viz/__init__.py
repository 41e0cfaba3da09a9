"""Pictures of inputs and results, drawn with OpenCV only."""
