"""What is done to training clips so that a model cannot learn them by heart.

In the order in which it happens: effects on the waveform, in copies made with the features; then on the device, in the
order in which a sound would meet it: polymix (other sounds), roll, crop and the masks of SpecAugment, and mixup last.
"""
