# ---
# jupyter:
#   instructlab:
#     id: "18"
#     title: Continual learning
#   jupytext:
#     notebook_metadata_filter: instructlab
#     text_representation: {extension: .py, format_name: percent}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # Exercises for lesson 18: Continual learning
#
# Each exercise is a box, a cell for your answer, and a checker in the cell below it. Replace the line that
# raises `NotImplementedError`, then run both cells.
#
# *Practice* exercises end with two hints and a solution. *Graded* exercises are tested on further cases
# that you do not see here.
#
# {{overview}}

# %% [markdown]
# ## 18.1 The mean
#
# > ●○○○○ · 5 minutes · practice
#
# Write the mean of a list of numbers.


# %% nbgrader={"grade_id": "answer_18_1", "solution": true}
def mean(numbers):
    """The mean of a list of numbers."""
    ### BEGIN SOLUTION
    total = sum(numbers)
    return total / len(numbers)
    ### END SOLUTION


# %% nbgrader={"grade_id": "check_18_1", "locked": true}
def check_18_1(mean):
    got = mean([1, 2, 3, 10])
    assert got is not None, "The function returned None. Did you forget return?"
    assert got != 16, "That is the sum. Divide by how many there are."
    assert got != 2.5, "That is the median. A mean moves with the largest number."
    assert got != 16 / 3, "You divided by one less than there are. That belongs to a variance."
    assert got == 4, f"The mean of 1, 2, 3, 10 is 4, not {got}."
    print("18.1 passed.")


check_18_1(mean)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# Two built-in functions are enough.
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# `sum` and `len`.
#
# </details>
#
# {{solution}}

# %% [markdown]
# ## 18.2 The count that is off
#
# > ●●○○○ · 5 minutes · practice · bug hunt
#
# This function should count the numbers above a threshold, and does not. Write it again, right.


# %%
def broken_count(numbers, threshold):
    return len([n >= threshold for n in numbers])


# %% nbgrader={"grade_id": "answer_18_2", "solution": true}
def count(numbers, threshold):
    """How many numbers lie above the threshold."""
    ### BEGIN SOLUTION
    return sum(number > threshold for number in numbers)
    ### END SOLUTION


# %% nbgrader={"grade_id": "check_18_2", "locked": true}
def check_18_2(count):
    got = count([1, 2, 2, 3, 4], 2)
    assert got is not None, "The function returned None. Did you forget return?"
    assert got != 5, "You count all of them: a list of True and False is as long as the list it came from."
    assert got != 4, "Above means greater: the threshold itself does not count."
    assert got != 1, "You count those below."
    assert got == 2, f"Two of 1, 2, 2, 3, 4 lie above 2, not {got}."
    print("18.2 passed.")


check_18_2(count)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# There are two bugs. One is in the comparison.
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# `sum` of a row of True and False counts the True ones.
#
# </details>
#
# {{solution}}

# %% [markdown]
# ## 18.3 Before you run it
#
# > ●●○○○ · 5 minutes · practice · prediction
#
# Ten numbers have the mean 3. Predict, with pencil and paper: `total`, their sum, and `doubled`, the mean after each of
# them has been doubled.


# %% nbgrader={"grade_id": "answer_18_3", "solution": true}
def prediction():
    """Return a dict of two numbers: total, doubled."""
    ### BEGIN SOLUTION
    return {"total": 30, "doubled": 6}
    ### END SOLUTION


# %% nbgrader={"grade_id": "check_18_3", "locked": true}
def check_18_3(prediction):
    mine = prediction()
    assert mine is not None, "The function returned None. Return your dict."
    assert set(mine) == {"total", "doubled"}, "Two keys: see the list above."
    assert mine["total"] != 3, "total: that is the mean itself."
    assert mine["total"] == 30, "total: the mean times how many there are."
    assert mine["doubled"] != 3, "doubled: the mean moves with the numbers."
    assert mine["doubled"] != 12, "doubled: doubled once, not twice."
    assert mine["doubled"] == 6, "doubled: a mean is linear."
    print("18.3 passed.")


check_18_3(prediction)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# Solve the formula of the mean for the sum.
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# Take the factor two out of the sum.
#
# </details>
#
# {{solution}}

# %% [markdown]
# ## 18.4 The range
#
# > ●●○○○ · 10 minutes · graded
#
# Write the distance of the largest number from the smallest. The list of no numbers has the range 0.


# %% nbgrader={"grade_id": "answer_18_4", "solution": true}
def spread(numbers):
    """Largest minus smallest; 0 for an empty list."""
    ### BEGIN SOLUTION
    ordered = sorted(numbers)
    return ordered[-1] - ordered[0] if ordered else 0
    ### END SOLUTION


# %% nbgrader={"grade_id": "check_18_4", "grade": true, "points": 3, "locked": true}
def check_18_4(spread):
    got = spread([2, 7, 3])
    assert got is not None, "The function returned None. Did you forget return?"
    assert got != 1, "You took the last minus the first. The list is in no order."
    assert got != -5, "Largest minus smallest: a range is not negative."
    assert got == 5, f"The range of 2, 7, 3 is 5, not {got}."
    print("18.4 passed.")


check_18_4(spread)
### BEGIN HIDDEN TESTS


def hidden_18_4(spread):
    try:
        empty = spread([])
    except (ValueError, IndexError):
        raise AssertionError("No numbers: the range is 0, not an error.") from None
    assert empty == 0, "No numbers: the range is 0."
    assert spread([-4, -1]) == 3, "Two negative numbers have a range too."


hidden_18_4(spread)
### END HIDDEN TESTS
