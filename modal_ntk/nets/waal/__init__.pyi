from .classifier import WAALClassifier as WAALClassifier
