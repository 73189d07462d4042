"""Running a field: as an ODE or an SDE, with its density; and the marginal field of a finite data set."""

from thalweg.core.dynamics import likelihood, marginal, ode, sde

__all__ = ["likelihood", "marginal", "ode", "sde"]
