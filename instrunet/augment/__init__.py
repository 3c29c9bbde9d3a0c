"""What is done to training clips so that a model cannot learn them by heart.

In the order in which it happens: effects on the waveform, in copies made with the features; then on the device crop and
roll, polymix, mixup, and the masks of SpecAugment last, so that no mask is mixed into another clip.
"""
