"""The traces that heads are fitted on: whose states are kept, which branches are tried there, and how they are judged."""
