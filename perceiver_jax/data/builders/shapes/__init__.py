"""What the builders of 3-D shapes share: reading safely, in parallel, with a report."""
