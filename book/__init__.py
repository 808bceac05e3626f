"""The rendered site: `make book`, or `python -m book` where book/requirements.lock is installed. It runs nothing.

``facts`` reads the repository, ``prose`` turns the links of a Markdown text into links of the site, ``study`` makes the
pages of lessons and exercises, ``pages`` all others, and writes them below build/book/source, laid out as the repository
is. ``conf.py`` is Sphinx's.
"""
