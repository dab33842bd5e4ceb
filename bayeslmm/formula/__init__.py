"""From formula text and a data frame to a `Design`."""
