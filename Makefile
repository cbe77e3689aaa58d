VENV ?= .venv
BIN := $(VENV)/bin
export OMP_NUM_THREADS ?= 2

.PHONY: demo test test-slow check setup train-demo clean
.DEFAULT_GOAL := demo

# The main job on the shipped demo model: no download, ends by itself.
demo: $(VENV)/.installed-plot
	@$(BIN)/whence demo

# Every test but the slow sweeps (see CONTRIBUTING.md).
test: $(VENV)/.installed-dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 -m "not slow"

test-slow: $(VENV)/.installed-dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 -m slow

check: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/basedpyright --level error
	$(BIN)/lint-imports

setup: $(VENV)/.installed-dev

# Makes the shipped model, dictionaries and parameter components anew: about half an hour on one core.
train-demo: $(VENV)/.installed-dev
	$(BIN)/python -m whence.demo.train

# The development environment holds everything the plain one does, so either stamp serves `make demo`.
$(VENV)/.installed-plot: pyproject.toml constraints.txt scripts/setup.sh
	@if [ ! -e $(VENV)/.installed-dev ] || [ -n "$$(find pyproject.toml constraints.txt -newer $(VENV)/.installed-dev)" ]; then \
		scripts/setup.sh $(VENV) plot; fi
	@touch $@

$(VENV)/.installed-dev: pyproject.toml constraints.txt scripts/setup.sh
	@scripts/setup.sh $(VENV) dev
	@touch $@

clean:
	rm -rf $(VENV) .pytest_cache .ruff_cache .hypothesis build dist
