import pytest
import torch

from losses.products import products, weighted_sum


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("rows, others, dim", [(1, 5, 7), (13, 1, 300), (0, 4, 3), (64, 33, 128)])
def test_products_are_those_of_plain_matrices(rows, others, dim, dtype):
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(n, dim, generator=generator, dtype=dtype) for n in (rows, others))
    torch.testing.assert_close(products(a, b), (a.double() @ b.double().T).to(dtype))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("rows", [0, 1, 7, 8, 9, 175])
def test_a_weighted_sum_takes_every_row_once_whatever_their_number(rows, dtype):
    generator = torch.Generator().manual_seed(0)
    values, weights = (
        torch.randn(rows, 30, generator=generator, dtype=dtype),
        torch.rand(rows, generator=generator, dtype=dtype),
    )
    torch.testing.assert_close(weighted_sum(values, weights), (values.double() * weights.double()[:, None]).sum(0).to(dtype))


def test_a_weighted_sum_does_not_depend_on_the_number_of_threads():
    values, weights = torch.randn(500, 300), torch.rand(500)
    before, sums = torch.get_num_threads(), []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        sums.append(weighted_sum(values, weights))
    torch.set_num_threads(before)
    assert torch.equal(*sums)
