# The course's commands. Each sets up what it needs the first time; `make help` lists them.
PYTHON ?= python3
VENV   := .venv
PY     := $(VENV)/bin/python
READY  := $(VENV)/.ready
TORCH  := $(shell sed -n 's/^torch==//p' constraints.txt)
CPU    := https://download.pytorch.org/whl/cpu
# On Linux without an NVIDIA GPU the CPU build of torch (200 MB) instead of the CUDA one (2.7 GB). TORCH_INDEX= (empty) takes PyPI's.
TORCH_INDEX ?= $(if $(filter Linux,$(shell uname -s)),$(shell command -v nvidia-smi >/dev/null || echo $(CPU)))
PINS   ?= -c constraints.txt
EXTRAS := import tomllib; print(*sum(tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"].values(), []), sep="\n")
ONE    := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1
.DEFAULT_GOAL := help
.PHONY: help lab test extras run sync full fresh pdf mutate stamp constraints clean

help:  ## list the commands
	@sed -n 's/^\([a-z]*\):.*## /  make \1\t/p' $(MAKEFILE_LIST) | expand -t 22
	@echo "Variables: NB=43 (number of a notebook), ARGS (more for make full, test and mutate), PYTHON (to build .venv with), FORCE=1 (make run on"
	@echo "  a busy machine), TORCH_INDEX (another index for torch, see the README), COURSE_DATA (folder of real data), COURSE_DEVICE (cpu, cuda)."

# The environment is built under another name and renamed when whole: an interrupted command leaves nothing half-made.
$(READY): requirements.txt constraints.txt
	@command -v $(PYTHON) >/dev/null || { echo "make: there is no '$(PYTHON)'. Install Python 3.11, 3.12 or 3.13, or name it: make PYTHON=/path/to/python3 ..."; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || { echo "make: the course is tested with Python 3.11 to 3.13, '$(PYTHON)' is $$($(PYTHON) -V). Name another: make PYTHON=python3.12 ..."; exit 1; }
	@test -x $(PY) && $(PY) -m pip --version >/dev/null 2>&1 || { rm -rf $(VENV) $(VENV).new; $(PYTHON) -m venv $(VENV).new && \
	  $(VENV).new/bin/python -m pip --version >/dev/null && mv $(VENV).new $(VENV) && $(PYTHON) -m venv $(VENV); } \
	  || { rm -rf $(VENV).new; echo "make: Python could not make a virtual environment (on Debian and Ubuntu: apt install python3-venv)."; exit 1; }
	@echo "Installing the course's packages into $(VENV) (about two minutes and 2 GB, only this once) ..."
	@test -z "$(TORCH_INDEX)" || $(PY) -c 'import torch' 2>/dev/null \
	  || $(PY) -m pip install --disable-pip-version-check torch$(if $(PINS),==$(TORCH)) --index-url $(TORCH_INDEX) \
	  || echo "make: torch could not be had from $(TORCH_INDEX): taking PyPI's build."
	@$(PY) -m pip install --disable-pip-version-check -r requirements.txt $(PINS) \
	  || { echo "make: the packages could not be installed (the lines above say which; a network is needed once). Run the command again to go on."; exit 1; }
	@touch $@

lab: $(READY)  ## JupyterLab on your own copies of the notebooks, in work/
	@$(PY) tools/course.py work
	@trap 'exit 0' INT; $(PY) -m jupyterlab --ServerApp.root_dir="$(CURDIR)" work/00_start_here.ipynb $(if $(filter 0,$(shell id -u)),--allow-root) $(LAB_ARGS) || test $$? -eq 130

test: $(READY)  ## prove everything: lint, tests, all notebooks in strict mode (NB=43: one notebook)
ifeq ($(NB),)
	@$(PY) -m ruff check .
	@$(ONE) $(PY) -m pytest -q -n 2 --dist loadfile --nbval --nbval-current-env $(ARGS)
else
	@$(ONE) $(PY) -m pytest -q --nbval --nbval-current-env notebooks/$(NB)_*.ipynb $(wildcard tests/test_$(NB)_*.py) $(ARGS)
	@$(ONE) $(PY) -m pytest -q tests/test_notebooks.py tests/test_probes.py -k "$(NB)_ or $(NB)-" $(ARGS)
endif

# Every extra of pyproject.toml, whatever their number. Without them the sections that need one say so in a sentence.
extras: $(READY)  ## what single sections need and `make lab` leaves out: Spark (500 MB; needs Java 17 or newer)
	@$(PY) -m pip install --disable-pip-version-check $(PINS) $$($(PY) -c '$(EXTRAS)')
	@command -v java >/dev/null || echo "make: there is no java. Spark needs Java 17 or newer (on Debian and Ubuntu: apt install openjdk-17-jre-headless)."

fresh: $(READY)  ## a fresh copy of notebook NB in work/; yours is kept under a dated name
	@$(PY) tools/course.py fresh $(NB)

pdf: $(READY)  ## print notebook NB into build/pdf/, every answer unfolded (needs Chromium)
	@$(PY) tools/course.py pdf $(NB)

full: $(READY)  ## execute notebook NB with full-size parameters into build/full/ (ARGS="-p NAME VALUE")
	@$(PY) tools/course.py full $(NB) $(ARGS)

run: $(READY)  ## for contributors: execute notebook NB from its text and store the outputs (rewrites notebooks/)
	@$(PY) tools/course.py run $(NB) $(if $(FORCE),--force)

sync: $(READY)  ## for contributors: bring notebooks and their texts, links, full-run figures, notation and the README together
	@$(PY) tools/course.py sync
	@$(PY) tools/notation.py

mutate: $(READY)  ## for contributors: break every function of notebook NB, one place at a time (ARGS="-k als")
	@$(ONE) COURSE_QUIET=1 $(PY) -m tests.mutate $(NB) $(ARGS)

stamp: $(READY)  ## for contributors: carry the course's address from pyproject.toml into the notebooks
	@$(PY) tools/course.py stamp

constraints:  ## for contributors: refresh the pins in constraints.txt from a fresh environment (TORCH stays)
	@rm -rf build/pins && mkdir -p build && $(PYTHON) -m venv build/pins
	@build/pins/bin/python -m pip install --quiet --disable-pip-version-check torch==$(TORCH) -r requirements.txt $$(build/pins/bin/python -c '$(EXTRAS)')
	@{ echo "# The exact set that is tested (make constraints)."; build/pins/bin/python -m pip freeze --all | sed 's/+cpu$$//' | grep -v '^nvidia-\|^triton\|^pip=\|^wheel='; } > build/constraints.txt
	@mv build/constraints.txt constraints.txt && rm -rf build/pins

clean:  ## remove what the commands made, except your copies in work/ and downloaded data
	rm -rf $(VENV) build .pytest_cache .ruff_cache
	find . -name __pycache__ -not -path './work/*' -prune -exec rm -rf {} +
