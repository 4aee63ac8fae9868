"""The systems of the two tutorials, trained by the ordinary code, with the tutorials' figures beside ours."""
