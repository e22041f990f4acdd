"""Operations on batches of images and maps."""
