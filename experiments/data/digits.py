"""Handwritten digits of scikit-learn: real data that need no download."""

import torch

from experiments.data.images import ImageDataModule, Split, Splits, hold_out

__all__ = ["Digits"]


class Digits(ImageDataModule):
    """1797 images of 8×8 pixels in 17 grey levels, ten classes.

    The test part of UCI's "Optical Recognition of Handwritten Digits" (Alpaydin and Kaynak, 1998),
    as `sklearn.datasets.load_digits` holds it.  It has no split of its own: a fifth is held out
    for testing, and `validation_share` of the rest for validation.

    Args:
        **options: as for `ImageDataModule`.
    """

    TEST_SHARE = 0.2

    def read(self) -> Splits:
        """Read the images from scikit-learn's own file.

        Raises:
            ModuleNotFoundError: if scikit-learn is not installed.
        """
        train, test = hold_out(_all_digits(), self.TEST_SHARE, self.split_seed)
        return Splits(*hold_out(train, self.validation_share, self.split_seed + 1), test)


def _all_digits() -> Split:
    try:
        from sklearn.datasets import load_digits
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "data=digits needs scikit-learn; install it with: "
            "pip install 'jaynes-callbacks[experiments]'"
        ) from error
    digits = load_digits()
    images = torch.from_numpy(digits.images).to(torch.uint8)[:, None]
    return Split(images, torch.from_numpy(digits.target).long())
