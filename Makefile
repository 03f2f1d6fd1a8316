# make demo                       the whole system on this machine, from clicks to live recommendations
# make demo CLICKS=clicks.csv     the same with your own click log; COLUMN="user=visitor item=sku" names its columns
# make demo KEEP=1                leave the services up until Ctrl-C
# make demo TIME_UNIT=s           its times are epoch seconds (or us; milliseconds and RFC 3339 need no word)
# make test                       lint, types and all tests; on Kafka and Redis too, where Java 17 and redis-server are

PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || echo python3)
VENV := .venv
BIN := $(VENV)/bin

.PHONY: help demo test check install clean

help:
	@sed -n 's/^# //p' $(firstword $(MAKEFILE_LIST)) | head -5

demo: $(VENV)/.demo
	@$(BIN)/recsys demo $(if $(CLICKS),--clicks "$(CLICKS)") $(foreach column,$(COLUMN),--column "$(column)") $(if $(TIME_UNIT),--time-unit $(TIME_UNIT)) $(if $(KEEP),--keep)

test: $(VENV)/.test check
	$(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder

check: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

install: $(VENV)/.test

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))' || \
		{ echo "recsys needs Python 3.11 or 3.12: make PYTHON=/path/to/python3.11 ..."; exit 1; }
	@$(PYTHON) -m venv $(VENV) || \
		{ rm -rf $(VENV); echo "the venv module is incomplete: apt install python3-venv"; exit 1; }

# What is installed is exactly what requirements.lock says.
$(VENV)/.demo: $(VENV)/bin/python pyproject.toml requirements.lock
	$(BIN)/python -m pip install --quiet --constraint requirements.lock --editable '.[all]'
	@touch $@

$(VENV)/.test: $(VENV)/bin/python pyproject.toml requirements.lock
	$(BIN)/python -m pip install --quiet --constraint requirements.lock --editable '.[all,dev]'
	@touch $@ $(VENV)/.demo

clean:
	rm -rf $(VENV) demo-run build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
