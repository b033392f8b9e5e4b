"""Making proposals from the user's own prompts: directions and vectors, found in the target itself.

Nothing here knows Ray or the command line. What is found is a small file that a proposal of kind ``ablation``
or ``vector`` names.
"""
