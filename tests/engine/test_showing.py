import numpy as np
import torch

from engine.showing import (
    COLOURS,
    FOUND,
    GAP,
    GREY,
    MAP,
    MOST_ROWS,
    RESULT,
    SHOWN,
    SIDE,
    TRUE,
    VIEWS,
    Showing,
    beside_each_other,
    map_of,
    outlined,
    sheet,
)  # fmt: skip


class Book:
    """What a logbook is given."""

    def __init__(self):
        self.pictures, self.rows = {}, None

    def picture(self, name, pixels, step):
        self.pictures[name] = pixels, step

    def embeddings(self, rows, about, columns, step):
        self.rows = rows, about, columns, step


def test_a_sheet_has_a_row_an_item_and_a_column_a_view_each_over_its_own_range():
    large, small = torch.rand(9, 1, 250, 250), torch.rand(9, 3, 40, 30)
    large[1, 0, :, :125], large[1, 0, :, 125:] = -7, 5
    picture, cell = sheet([large, small, *[small] * 5]), 84 + GAP  # every third pixel of 250
    assert picture.shape == (SHOWN * cell, VIEWS * cell) and picture.dtype == np.uint8 and cell < SIDE
    of_second = picture[cell : 2 * cell, :cell]
    assert set(np.unique(of_second)) == {0, 255} and of_second[10, 70] == 255 and of_second[10, 10] == 0
    assert not picture[:cell, cell + 30 : 2 * cell].any()  # beside a small one there is nothing
    assert sheet([torch.zeros(2, 1, 8, 8)]).max() == 0


def test_views_are_asked_for_once_an_epoch_and_embeddings_kept_up_to_a_limit():
    showing, asked, book = Showing(), [], Book()

    def views():
        asked.append(1)
        return [torch.rand(100, 1, 20, 20)]

    for epoch in (1, 2):
        for step in range(5):
            rows = torch.randn(100, 4, requires_grad=True) + 1000 * (step + 1)
            showing.add(views, rows, np.arange(100) + 100 * step)
        showing.give(book, epoch, lambda index: f"root/{'ab'[index % 2]}/{index}.png", for_projector=epoch == 2)
        assert len(asked) == epoch and book.pictures["views"][1] == book.pictures["embeddings"][1] == epoch
        assert (book.rows is None) == (epoch == 1)
    rows, about, columns, step = book.rows
    assert rows.shape == (MOST_ROWS, 4) and step == 2 and columns == ["file", "folder"]
    assert about[101] == ["101.png", "b"] and 1900 < rows[101].mean() < 2100  # rows and names belong together


def test_embeddings_are_shown_without_views_too():
    showing, book = Showing(), Book()
    showing.add(None, torch.randn(5, 4), np.arange(5))
    showing.give(book, 1, str, for_projector=False)
    assert set(book.pictures) == {"embeddings"}


def test_a_segmented_slice_has_the_borders_of_every_class_the_predictions_over_the_true_ones():
    image = np.random.default_rng(0).normal(size=(30, 20))
    truth, predicted = np.zeros((2, 30, 20), np.uint8)
    truth[4:10, 0:6], truth[4:10, 6:12], predicted[4:10, 3:6] = 1, 2, 1
    picture = outlined(image, truth, predicted)
    true, found = ((picture == colour).all(2) for colour in (TRUE, FOUND))
    assert picture.shape == (30, 20, 3) and found.sum() == 2 * 6 + 2 * 3 - 4
    assert true[4, 0] and true[7, 6] and true[7, 11] and not true[7, 5] and not true[7, 9]  # (7, 5) is the prediction's
    assert not (true | found)[12:].any() and len(np.unique(picture[12:])) > 50
    assert outlined(np.zeros((RESULT + 1, 9)), *np.zeros((2, RESULT + 1, 9))).shape == (RESULT // 2 + 1, 5, 3)


def test_slices_of_other_sizes_stand_beside_each_other():
    assert beside_each_other([np.ones((8, 5, 3), np.uint8), np.ones((4, 6, 3), np.uint8)]).shape == (8, 11 + 2 * GAP, 3)


def test_an_epoch_in_which_nothing_was_shown_has_no_pictures():
    showing, book = Showing(), Book()
    showing.give(book, 1, str, for_projector=True)
    showing.add([torch.rand(2, 1, 8, 8)], None, np.arange(2))
    showing.give(book, 1, str, for_projector=True)
    assert set(book.pictures) == {"views"} and book.rows is None


def test_groups_that_lie_apart_are_apart_on_the_map_in_colours_of_their_own():
    rng = np.random.default_rng(0)
    groups = ["b"] * 30 + ["a"] * 20
    embeddings = rng.normal(size=(50, 8)) * 0.05 + np.repeat(np.eye(8)[:2], [30, 20], axis=0)
    picture = map_of(embeddings, groups)[:MAP]
    centres = [np.argwhere((picture == COLOURS[place]).all(2)).mean(0) for place in (0, 1)]  # the larger group comes first
    assert abs(centres[0][1] - centres[1][1]) > MAP / 2


def test_many_groups_share_a_colour_and_equal_embeddings_lie_in_the_middle():
    groups = [f"g{number}" for number in range(14)]
    picture = map_of(np.ones((14, 3)), groups)
    assert picture.shape[0] == MAP + 11 * 14
    marked = np.argwhere((picture[:MAP] != 255).any(2))
    assert abs(marked.mean(0) - MAP / 2).max() < 2
    assert (map_of(np.eye(14), groups)[:MAP] == GREY).all(2).any()
