"""The routing rules: the language admins write, the engine that decides, and the tests beside the rules."""
