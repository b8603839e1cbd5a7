"""From files to tensors: opened safely, read by the names that each format gives, measured by their shapes."""
