"""The centre's side: who pushes to many terminals and hears what became of it. No agent runs this."""
