"""What a call consists of: what it fits, which prompts wait and which are decoded, and how answers come out."""
