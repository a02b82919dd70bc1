"""The closed-form update of a linear layer that memorises keys: one kernel for four methods.

A layer W (out, d) is to send the keys K (d, N) to values that differ from what it does by the residuals R (out, N), and
to do as before on everything else. With a preconditioner M (d, d), symmetric and positive semi-definite, and G = M K:

    dW = R (lambda I + K^T G)^-1 G^T

MEMIT (Meng et al. 2023, eq. 14)     M = C^-1: R K^T (lambda C + K K^T)^-1 by the identity of Woodbury
EMMET (Gupta et al. 2024)            M = C^-1, lambda = 0: dW K = R exactly
ROME (Meng et al. 2022, eq. 2)       that with one key
AlphaEdit (Fang et al. 2025)         M = P, the projector on what preserved keys do not use; lambda its L2

C is the second moment of the layer's inputs on ordinary text. Only an N x N system is solved per batch of edits, in
float64: C's eigenvalues span many orders of magnitude.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from common.errors import UserError


@dataclass(frozen=True)
class InverseCovariance:
    """M = C^-1, by the Cholesky factor of C (d, d), float64."""

    cholesky: Tensor

    @classmethod
    def of(cls, covariance: Tensor) -> "InverseCovariance":
        """Raises UserError when C is singular: fewer tokens than the layer has inputs."""
        factor, failed = torch.linalg.cholesky_ex(covariance.double())
        if failed:
            raise UserError(
                f"the covariance of {len(covariance)} inputs is singular; give more --covariance.tokens "
                "(ten times the number of inputs are ample)"
            )
        return cls(factor)

    def times(self, keys: Tensor) -> Tensor:
        """M K, for K (d, N)."""
        return torch.cholesky_solve(keys.double(), self.cholesky)


@dataclass(frozen=True)
class NullSpace:
    """M = P = U U^T, the projector on the span U (d, r) of the eigenvectors of C that ordinary keys hardly use."""

    basis: Tensor

    @classmethod
    def of(cls, covariance: Tensor, threshold: float) -> "NullSpace":
        """Eigenvectors whose eigenvalues are below `threshold` times the mean one.

        Raises UserError when there are none. AlphaEdit's own threshold is absolute; a relative one carries over to
        layers of another scale.
        """
        values, vectors = torch.linalg.eigh(covariance.double())
        basis = vectors[:, values < threshold * values.mean()]
        if basis.size(1) == 0:
            raise UserError("no direction is left for AlphaEdit; raise --update.null-space-threshold")
        return cls(basis)

    def times(self, keys: Tensor) -> Tensor:
        """M K, for K (d, N)."""
        return self.basis @ (self.basis.T @ keys.double())


def closed_form_update(keys: Tensor, residuals: Tensor, M: InverseCovariance | NullSpace, lam: float) -> Tensor:
    """dW (out, d), float64, for keys (d, N), residuals (out, N), a preconditioner and lambda >= 0.

    With lambda = 0 the keys must be independent; raises UserError when they are not.
    """
    K, G = keys.double(), M.times(keys)
    S = K.T @ G
    system = S + lam * torch.eye(len(S), dtype=S.dtype, device=S.device)
    factor, failed = torch.linalg.cholesky_ex((system + system.T) / 2)
    # cholesky_ex lets systems pass that are singular up to rounding: their smallest pivot vanishes beside the largest.
    pivots = factor.diagonal()
    if failed or pivots.min() <= 1e-7 * pivots.max():
        raise UserError("two edits have (nearly) the same key and lambda is 0; edit them apart or use --method memit")
    return residuals.double() @ torch.cholesky_solve(G.T, factor)
