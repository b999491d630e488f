# The course's commands. Each sets up what it needs the first time; `make help` lists them.
PYTHON ?= python3
VENV   := .venv
PY     := $(VENV)/bin/python
READY  := $(VENV)/.ready
TORCH  := $(shell sed -n 's/^torch==//p' constraints.txt)
.DEFAULT_GOAL := help
.PHONY: help lab test run sync full stamp constraints clean

help:  ## list the commands
	@sed -n 's/^\([a-z]*\):.*## /  make \1\t/p' $(MAKEFILE_LIST) | expand -t 22
	@echo "Variables: NB=43 (number of a notebook), ARGS (more for make full), PYTHON (to build .venv with),"
	@echo "  TORCH_INDEX (another index for torch, see the README), COURSE_DATA (folder of real data), COURSE_DEVICE (cpu, cuda)."

$(READY): requirements.txt constraints.txt
	@command -v $(PYTHON) >/dev/null || { echo "make: there is no '$(PYTHON)'. Install Python 3.11 or newer, or name it: make PYTHON=/path/to/python3 ..."; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "make: the course needs Python 3.11 or newer, '$(PYTHON)' is $$($(PYTHON) -V). Name another: make PYTHON=python3.12 ..."; exit 1; }
	@test -x $(PY) || $(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); echo "make: Python could not make a virtual environment (on Debian and Ubuntu: apt install python3-venv)."; exit 1; }
	@echo "Installing the course's packages into $(VENV) (about two minutes and 2 GB, only this once) ..."
	@test -z "$(TORCH_INDEX)" || $(PY) -m pip install --quiet --disable-pip-version-check torch==$(TORCH) --index-url $(TORCH_INDEX) \
	  || { echo "make: torch $(TORCH) could not be installed from TORCH_INDEX=$(TORCH_INDEX)."; exit 1; }
	@$(PY) -m pip install --quiet --disable-pip-version-check -r requirements.txt -c constraints.txt \
	  || { echo "make: the packages could not be installed (the lines above say which; a network is needed once). Run the command again to go on."; exit 1; }
	@touch $@

lab: $(READY)  ## JupyterLab on your own copies of the notebooks, in work/
	@$(PY) tools/course.py work
	@$(PY) -m jupyterlab --ServerApp.root_dir="$(CURDIR)" work/00_start_here.ipynb $(if $(filter 0,$(shell id -u)),--allow-root) $(LAB_ARGS)

test: $(READY)  ## prove everything: lint, tests, all notebooks in strict mode
	@$(PY) -m ruff check .
	@OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 $(PY) -m pytest -q -n 2 --dist loadfile --nbval --nbval-current-env $(ARGS)

run: $(READY)  ## execute notebook NB from its text and store the outputs
	@$(PY) tools/course.py run $(NB)

sync: $(READY)  ## bring notebooks and their texts together
	@$(PY) tools/course.py sync

full: $(READY)  ## execute notebook NB with full-size parameters into build/full/ (ARGS="-p NAME VALUE")
	@$(PY) tools/course.py full $(NB) $(ARGS)

stamp: $(READY)  ## carry the course's address from pyproject.toml into notebooks, badges and README
	@$(PY) tools/course.py stamp

constraints:  ## refresh the pins in constraints.txt from a fresh environment (TORCH stays)
	@rm -rf build/pins && mkdir -p build && $(PYTHON) -m venv build/pins
	@build/pins/bin/python -m pip install --quiet --disable-pip-version-check torch==$(TORCH) -r requirements.txt
	@{ echo "# The exact set that is tested (make constraints)."; build/pins/bin/python -m pip freeze | sed 's/+cpu$$//' | grep -v '^nvidia-\|^triton'; } > build/constraints.txt
	@mv build/constraints.txt constraints.txt && rm -rf build/pins

clean:  ## remove what the commands made, except your copies in work/ and downloaded data
	rm -rf $(VENV) build .pytest_cache .ruff_cache
	find . -name __pycache__ -not -path './work/*' -prune -exec rm -rf {} +
