"""Training crops: read, augmented, batched."""
