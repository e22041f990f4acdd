"""fgbook: fine-grained image classification, five papers, each as a small readable
PyTorch method.
"""

__version__ = "0.1.0"
