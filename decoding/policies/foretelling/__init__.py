"""What a head's cascade foretells of the next forward, for the policies that commit it and for those that check it."""
