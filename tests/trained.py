"""A perceptron on digits, trained for a moment."""

from flatbook import models, training


def trained(digits, epochs=3, *, width=1.0, **recipe):
    """The network of seed 0 after some epochs, in evaluation mode."""
    net = models.build("mlp", 10, width=width, in_channels=1, image_size=8)
    net = models.reinitialise(net, 0)
    training.train(net, digits, training.Recipe(epochs, **recipe), progress=False)
    return net.eval()
