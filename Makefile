# Both commands do their own set-up: python3 (3.11 or newer), make and a package
# index are all they need. The work is in tools/, one small file for each job.
PYTHON ?= python3

help:            ## show this list
	@echo "flatbook: make TARGET (PYTHON=... chooses the interpreter, 3.11 or newer)"
	@sed -n 's/^\([a-z-]*\): *## /  \1	/p' Makefile | expand -t 18

book:            ## build the book: _build/html/index.html
test:            ## check everything: style, types, tests, chapters, pages
fix:             ## put code and notebooks into their normal form
accept:          ## store the new outputs of checked cells (read the diff)
slides:          ## the slides of all chapters: _build/html/slides/index.html
pdf:             ## the book on paper: _build/flatbook.pdf (needs a browser)
course:          ## the exercises as assignments: _build/course (nbgrader)
colab:           ## rehearse Colab: clean environments, oldest and newest packages
address:         ## write the public address of the repository everywhere
check-address:   ## say where another address is written

book test fix accept slides pdf course colab address check-address:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "flatbook needs Python 3.11 or newer, and $(PYTHON) is:" \
	    "$$($(PYTHON) --version 2>&1). Try: make $@ PYTHON=python3.13"; exit 2; }
	@$(PYTHON) -m tools.make $@

clean:           ## remove what was built (not .venv)
	rm -rf _build book/_static/vendor .mypy_cache .pytest_cache .ruff_cache

.PHONY: help book test fix accept slides pdf course colab address check-address clean
.NOTPARALLEL:
