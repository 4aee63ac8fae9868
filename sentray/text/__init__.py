"""What a review becomes: cleaning, vocabulary and ids. Imports neither Ray nor TensorFlow."""
