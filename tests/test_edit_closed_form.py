"""The closed form beside direct solves, and the identities between its methods."""

import pytest
import torch

from common.errors import UserError
from edit.closed_form import InverseCovariance, NullSpace, closed_form_update

d, out, N = 64, 16, 20


def problem(correlation=0.5, n=N, seed=0):
    """Keys (d, n) with a shared part, residuals (out, n), a covariance of spread eigenvalues (d, d), a weight."""
    g = torch.Generator().manual_seed(seed)
    scale = torch.logspace(-1, 1, d, dtype=torch.float64)
    X = torch.randn(20 * d, d, generator=g, dtype=torch.float64) * scale
    K = torch.randn(d, n, generator=g, dtype=torch.float64) + correlation * 5 * torch.randn(
        d, 1, generator=g, dtype=torch.float64
    )
    R, W = (torch.randn(out, size, generator=g, dtype=torch.float64) for size in (n, d))
    return K, R, X.T @ X / len(X), W


@pytest.mark.parametrize("lam", [0.1, 10.0, 1e3])
def test_woodbury_equals_the_direct_solve(lam):
    K, R, C, _ = problem()
    direct = torch.linalg.solve(lam * C + K @ K.T, K @ R.T).T
    found = closed_form_update(K, R, InverseCovariance.of(C), lam)
    assert (found - direct).norm() / direct.norm() < 1e-10


def test_one_key_is_rome():
    K, R, C, W = problem(n=1)
    k, v = K[:, 0], W @ K[:, 0] + R[:, 0]
    u = torch.linalg.solve(C, k)
    rome = torch.outer(v - W @ k, u / (u @ k))
    found = closed_form_update(K, R, InverseCovariance.of(C), 0.0)
    assert (found - rome).norm() / rome.norm() < 1e-10
    assert torch.allclose((W + found) @ k, v, atol=1e-9)


def test_lambda_to_zero_is_emmet_with_no_residual_on_50_correlated_keys():
    K, R, C, _ = problem(correlation=0.9, n=50)
    M = InverseCovariance.of(C)
    emmet = closed_form_update(K, R, M, 0.0)
    assert (emmet @ K - R).abs().max() < 1e-8
    near = [float((closed_form_update(K, R, M, lam) - emmet).norm()) for lam in (1e-2, 1e-4, 1e-6)]
    assert near[0] > near[1] > near[2] and near[2] < 1e-6 * float(emmet.norm()) * 1e3


@pytest.mark.parametrize("lam", [0.5, 30.0, 2000.0])
def test_the_residual_of_a_key_shrinks_as_lambda_over_lambda_plus_s(lam):
    K, R, C, _ = problem(n=1)
    M = InverseCovariance.of(C)
    s = float(K[:, 0] @ M.times(K)[:, 0])
    left = R - closed_form_update(K, R, M, lam) @ K
    assert torch.allclose(left, R * lam / (lam + s), atol=1e-10)


def test_keys_of_ordinary_text_are_as_many_standard_deviations_away_as_there_are_inputs():
    """E[k^T C^-1 k] = d on C's own sample: what makes lambda over the width mean the same everywhere."""
    g = torch.Generator().manual_seed(1)
    X = torch.randn(500, d, generator=g, dtype=torch.float64)
    M = InverseCovariance.of(X.T @ X / len(X))
    assert abs(float((X.T * M.times(X.T)).sum(0).mean()) - d) < 1e-8


def test_alphaedit_projects_and_leaves_preserved_keys_alone():
    K, R, C, _ = problem()
    values, vectors = torch.linalg.eigh(C)
    M = NullSpace.of(C, threshold=0.05)
    P = M.basis @ M.basis.T
    assert 0 < M.basis.size(1) < d
    assert torch.allclose(P @ P, P, atol=1e-10) and torch.allclose(P, P.T, atol=1e-12)
    dW = closed_form_update(K, R, M, 10.0)
    preserved = vectors[:, values >= 0.05 * values.mean()]
    assert (dW @ preserved).abs().max() < 1e-10 < float(dW.norm())
    direct = torch.linalg.solve(P @ K @ K.T + 10.0 * torch.eye(d, dtype=torch.float64), P @ K @ R.T).T
    assert (dW - direct).norm() / direct.norm() < 1e-10


def test_a_singular_covariance_and_equal_keys_are_errors():
    K, R, C, _ = problem(n=2)
    with pytest.raises(UserError, match=r"singular; give more --covariance\.tokens"):
        InverseCovariance.of(torch.zeros(d, d))
    with pytest.raises(UserError, match="no direction is left"):
        NullSpace.of(torch.eye(d), 0.02)
    same = K[:, :1].repeat(1, 2)
    with pytest.raises(UserError, match="the same key and lambda is 0"):
        closed_form_update(same, R, InverseCovariance.of(C), 0.0)
    assert torch.isfinite(closed_form_update(same, R, InverseCovariance.of(C), 1.0)).all()
