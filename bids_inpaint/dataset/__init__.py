"""What BIDS sees: names in, names out."""
