"""From bytes on a disk to mono samples at a rate, and which stretches of them to look at."""
