import pytest

from losses.errors import ClusteringError
from losses.memory_bank import MemoryBank


@pytest.mark.parametrize("rows", [4, 8])
def test_a_saved_bank_of_other_data_is_refused(rows):
    with pytest.raises(ClusteringError, match=f"the saved bank has {rows} rows .* now give 6"):
        MemoryBank(6, 4).load_state_dict(MemoryBank(rows, 4).state_dict())
