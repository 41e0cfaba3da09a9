"""Training of the matcher that registers pictures of different sensors (`anysense calibrate register`)."""
