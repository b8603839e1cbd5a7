"""How the embedded model was made, and how to make another: see README.md in this folder."""
