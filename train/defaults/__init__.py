"""What a head decodes with by default: chosen by decoding dev prompts end to end, and told in its model card."""
