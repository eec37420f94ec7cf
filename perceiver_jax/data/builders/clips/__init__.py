"""What builders of clips with sound and picture share: decoding, resumable shards, the report."""
