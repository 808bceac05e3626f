"""The rendered site: `make book`, or `python -m book` where book/requirements.lock is installed. It runs nothing.

``prose`` turns the links of a Markdown text into links of the site, ``pages`` writes every page's source below
build/book/source, laid out as the repository is, ``conf.py`` is Sphinx's.
"""
