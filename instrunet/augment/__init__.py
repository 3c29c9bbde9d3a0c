"""What is done to training clips so that a model cannot learn them by heart."""
