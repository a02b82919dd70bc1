"""The generated world: synthetic documents for machines that can download nothing.

Four kinds, each a module that takes a count and a seeded `random.Random`: arithmetic, facts, problems
(GSM8K's format) and passages (HellaSwag's format). The facts are real, everything else is made up; nothing
measured on it says anything about real language, so results on it are called synthetic.
"""
