"""New heads: the layers that turn pooled features into logits."""

from torch import nn


def linear(features: int, num_classes: int) -> nn.Linear:
    """A head for a pretrained backbone: weights from N(0, 0.01), biases 0, so that
    training starts near equal probabilities whatever the number of features.
    """
    head = nn.Linear(features, num_classes)
    nn.init.normal_(head.weight, std=0.01)
    nn.init.zeros_(head.bias)
    return head


def dense(inputs: int, outputs: int) -> nn.Linear:
    """A fully connected layer that starts as Keras's ``Dense`` does: Glorot's uniform
    weights, biases 0.
    """
    layer = nn.Linear(inputs, outputs)
    nn.init.xavier_uniform_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer
