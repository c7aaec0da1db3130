"""Losses as functions of the outputs: terms, curvature, and targets to draw."""

from bdhf.optim.losses.hessians import OutputHessian
from bdhf.optim.losses.likelihoods import Likelihood
from bdhf.optim.losses.recognition import recognise
from bdhf.optim.losses.weights import is_mean, likelihood_of, weights

__all__ = ["Likelihood", "OutputHessian", "is_mean", "likelihood_of", "recognise", "weights"]
