"""The words for each step of lesson 15's language: several wordings, ``{}`` for a number, a test or a body."""

PHRASES: dict[str, tuple[str, ...]] = {
    "reverse": ("reverse the list", "turn the list around", "write the list backwards"),
    "sort": ("sort the list", "put the numbers in order", "arrange the numbers from small to large"),
    "unique": ("remove repeated numbers", "keep each number once", "drop duplicates"),
    "swap": ("swap the first and the last number", "exchange both ends", "let the ends trade places"),
    "twice": ("repeat the list", "write the list two times", "append a copy of the list"),
    "take": ("take the first {} numbers", "keep only the first {}", "cut the list after {} numbers"),
    "drop": ("drop the first {} numbers", "leave out the first {}", "start after the first {} numbers"),
    "length": ("count the numbers", "give the length of the list", "say how many numbers there are"),
    "sum": ("add up the numbers", "give the sum", "compute the total"),
    "max": ("give the largest number", "find the maximum", "pick the biggest number"),
    "min": ("give the smallest number", "find the minimum", "pick the least number"),
    "first": ("give the first number", "pick the number at the start", "return the head of the list"),
    "last": ("give the last number", "pick the number at the end", "return the tail number"),
    "add": ("add {}", "increase it by {}", "go up by {}"),
    "times": ("multiply it by {}", "make it {} times as large", "scale it by {}"),
    "rest": ("take the remainder after dividing by {}", "reduce it modulo {}", "keep what dividing by {} leaves"),
    "upto": ("count from 1 up to it", "list all numbers up to it", "write the numbers from 1 to it"),
    "map": ("for each number {}", "change every number : {}", "do this to all numbers : {}"),
    "filter": ("keep the numbers that are {}", "remove all numbers that are not {}", "select numbers that are {}"),
    "if": ("if {} is {} then {} , otherwise {}", "when {} is {} , {} ; else {}", "provided {} is {} , {} ; else , {}"),
}  # fmt: skip
RELATIONS = {">": "greater than {}", "<": "less than {}", "=": "equal to {}", "even": "even", "odd": "odd"}
JOINS = (" , then ", " ; next ", " and after that ")
