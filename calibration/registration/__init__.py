"""Registration: the homography between two pictures, whatever sensors they are of."""
